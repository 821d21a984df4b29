// Every dot is a detection: a score over the true IoU of its box (Fig. 1 bottom, Fig. 5).
function explorer(kit, data) {
  const { html, svg, set, text, clamp, columns, column, drawing, picture, place, box } = kit;
  const { gamma, iou } = data;
  const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
  const count = iou.length;

  /** Eq. 4 with the IoU score limited to 0..1; undefined leaves a factor out. */
  const fuse = (cls, ism, rsm, power = gamma) => {
    const product = ism === undefined ? cls : cls * clamp(ism, 0, 1);
    return rsm === undefined ? product : product ** power * rsm ** (1 - power);
  };
  /** Pairs of which both values are numbers. */
  const pairs = (xs, ys) => xs.map((x, i) => [x, ys[i]]).filter(([x, y]) => known(x) && known(y));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  /** Pearson's correlation; null if undefined: fewer than 2 pairs, or one side constant. */
  const pearson = (xs, ys) => {
    const both = pairs(xs, ys);
    if (both.length < 2 || [0, 1].some((side) => both.every((pair) => pair[side] === both[0][side]))) return null;
    const [mx, my] = [mean(both.map(([x]) => x)), mean(both.map(([, y]) => y))];
    let [xx, yy, xy] = [0, 0, 0];
    for (const [x, y] of both) {
      xx += (x - mx) ** 2;
      yy += (y - my) ** 2;
      xy += (x - mx) * (y - my);
    }
    return xy / Math.sqrt(xx * yy);
  };
  /** Ranks from 0; equal values share their mean rank. */
  const ranks = (values) => {
    const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
    const result = [];
    for (let first = 0; first < order.length; ) {
      let end = first;
      while (end < order.length && values[order[end]] === values[order[first]]) end++;
      for (let i = first; i < end; i++) result[order[i]] = (first + end - 1) / 2;
      first = end;
    }
    return result;
  };
  const spearman = (xs, ys) => {
    const both = pairs(xs, ys);
    return pearson(ranks(both.map(([x]) => x)), ranks(both.map(([, y]) => y)));
  };
  /** Expected calibration error of a score read as IoU, and the means of its bins of equal width. */
  const calibration = (xs, ys, bins = 10) => {
    const both = pairs(xs, ys);
    const table = Array.from({ length: bins }, () => ({ n: 0, score: 0, iou: 0 }));
    for (const [x, y] of both) {
      const bin = table[Math.trunc(clamp(x * bins, 0, bins - 1))];
      bin.n += 1;
      bin.score += x;
      bin.iou += y;
    }
    const error = both.length ? table.reduce((sum, bin) => sum + Math.abs(bin.score - bin.iou), 0) / both.length : null;
    const means = table.filter(({ n }) => n).map(({ n, score, iou: sum }) => ({ n, score: score / n, iou: sum / n }));
    return { error, means };
  };

  // All scores of all detections, which are sorted by their IoU.
  const { cls, ISM, RSM } = data.scores;
  const all = (score) => iou.map((_, i) => score(i));
  const scores = { ...data.scores };
  const times = (i) => (known(ISM[i]) ? fuse(cls[i], ISM[i]) : null);
  if (ISM) scores["cls × ISM"] = all(times);
  if (ISM && RSM) scores.fused = all((i) => (known(times(i)) && known(RSM[i]) ? fuse(cls[i], ISM[i], RSM[i]) : null));
  const names = Object.keys(scores);

  let [name, least] = ["cls", data.min_iou];
  const firstShown = () => iou.filter((value) => value < least - 1e-9).length;
  let first = firstShown();
  // To begin with, the detection that promises most beyond what it holds.
  const gap = (i) => cls[i] - iou[i];
  let at = iou.reduce((best, _, i) => (gap(i) > gap(best) ? i : best), 0);

  // The scatter.
  const from = Math.floor(data.min_iou * 10 + 1e-9) / 10;
  const step = from < 0.5 ? 0.2 : 0.1;
  const ticks = Array.from({ length: 11 }, (_, i) => Number((from + i * step).toFixed(1))).filter((tick) => tick <= 1);
  const chart = kit.chart("Detections: score over true IoU", {
    width: 420, height: 360,
    x: { from, to: 1, label: "true IoU of the box", ticks },
    y: { from: 0, to: 1, label: "score", ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] },
  });
  const diagonal = svg("path", { d: chart.path([[from, from], [1, 1]]), class: "cpm-diagonal" });
  const dots = iou.map((value) => svg("circle", { cx: chart.X(value), r: 3.2, class: "cpm-dot" }));
  const gaps = svg("g", { "aria-hidden": "true" });
  const ring = svg("circle", { r: 7, class: "cpm-ring" });
  const plane = svg("rect", {
    x: chart.X(from) - 8, y: chart.Y(1) - 8,
    width: chart.X(1) - chart.X(from) + 16, height: chart.Y(0) - chart.Y(1) + 16,
    class: "cpm-plane", tabindex: 0, role: "slider", "aria-label": "detection, by true IoU", "aria-valuemin": 1,
    "data-lm-suppress-shortcuts": "true",
  });
  chart.layer.append(diagonal, svg("g", { "aria-hidden": "true" }, ...dots), gaps, ring, plane);

  /** The shown detection whose dot is nearest to a place in the chart. */
  const nearest = (x, y) => {
    let [best, shortest] = [at, Infinity];
    for (let i = first; i < count; i++) {
      if (!known(scores[name][i])) continue;
      const away = Math.hypot(chart.X(iou[i]) - x, chart.Y(clamp(scores[name][i], 0, 1)) - y);
      if (away < shortest) [best, shortest] = [i, away];
    }
    return best;
  };
  const pick = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.node.getScreenCTM().inverse());
    go(nearest(point.x, point.y));
  };
  plane.addEventListener("pointerdown", (event) => {
    plane.setPointerCapture(event.pointerId);
    plane.focus({ preventScroll: true });
    pick(event);
  });
  plane.addEventListener("pointermove", (event) => plane.hasPointerCapture(event.pointerId) && pick(event));
  plane.addEventListener("keydown", (event) => {
    const size = event.shiftKey ? 10 : 1;
    const places = {
      ArrowRight: at + size, ArrowUp: at + size, ArrowLeft: at - size, ArrowDown: at - size,
      Home: first, End: count - 1,
    };
    if (!(event.key in places)) return;
    go(places[event.key]);
    event.preventDefault();
    event.stopPropagation();
  });

  // The picture around the box.
  const view = drawing(100, 100, "Picture of the chosen detection", { class: "cpm-crop" });
  const photo = picture("", 0, 0, 1, 1);
  const truth = box("truth", [0, 0, 0, 0]);
  const found = box("prediction", [0, 0, 0, 0]);
  view.append(photo, truth, found);
  /** A square window of the picture that holds both boxes, with room around them. */
  const crop = (a, b, [width, height]) => {
    const low = [0, 1].map((side) => Math.min(a[side], b[side]));
    const high = [2, 3].map((side) => Math.max(a[side], b[side]));
    const size = Math.min(Math.max(high[0] - low[0], high[1] - low[1]) * 1.5 + 12, Math.max(width, height));
    const start = [width, height].map((side, axis) =>
      side <= size ? (side - size) / 2 : clamp((low[axis] + high[axis] - size) / 2, 0, side - size));
    return [...start, size];
  };

  const numbers = kit.teller();
  const table = html("tbody", {});
  const heading = html("caption", {});
  const head = html("tr", {}, ...["score", "this box", "Pearson", "Spearman", "calib. error"].map((words) =>
    html("th", { scope: "col" }, words)));

  function arithmetic(i) {
    const product = `${text(cls[i])} × ${text(ISM[i])}`;
    if (name === "cls × ISM") return `cls × ISM: ${product} = ${text(scores[name][i])}.`;
    return `Fused: (${product})^${text(gamma)} × ${text(RSM[i])}^${text(1 - gamma)} = ${text(scores.fused[i])}.`;
  }
  /** What depends on the score and on the least IoU. */
  function measure() {
    first = firstShown();
    const shown = (values) => values.slice(first);
    const { means } = calibration(shown(scores[name]), shown(iou));
    gaps.replaceChildren(...means.map(({ n, score, iou: fit }) => {
      const size = clamp(2.5 + Math.sqrt(n / Math.max(1, count - first)) * 6, 3, 8);
      return svg("g", {},
        svg("path", { d: chart.path([[fit, score], [fit, fit]]), class: "cpm-gap" }),
        svg("rect", {
          x: chart.X(fit) - size / 2, y: chart.Y(score) - size / 2, width: size, height: size, class: "cpm-bin",
        }));
    }));
    dots.forEach((dot, i) => {
      const value = scores[name][i];
      dot.toggleAttribute("hidden", i < first || !known(value));
      if (known(value)) set(dot, { cy: chart.Y(clamp(value, 0, 1)) });
    });
    heading.textContent = `Over ${count - first} boxes with a true IoU of at least ${text(least)}`;
    table.replaceChildren(...names.map((other) => {
      const [xs, ys] = [shown(scores[other]), shown(iou)];
      const values = [pearson(xs, ys), spearman(xs, ys), calibration(xs, ys).error];
      return html("tr", { class: other === name ? "cpm-chosen" : null },
        html("th", { scope: "row" }, other), html("td", {}), ...values.map((value) => html("td", {}, text(value))));
    }));
    go(at);
  }
  function go(next) {
    const empty = first >= count;
    ring.toggleAttribute("hidden", empty);
    view.toggleAttribute("hidden", empty);
    set(plane, { "aria-valuemax": Math.max(1, count - first), "aria-valuenow": 1, "aria-valuetext": "none" });
    if (empty) {
      numbers.tell("No box is left: lower the least IoU.");
      return;
    }
    at = clamp(next, first, count - 1);
    const value = scores[name][at];
    ring.toggleAttribute("hidden", !known(value));
    if (known(value)) set(ring, { cx: chart.X(iou[at]), cy: chart.Y(clamp(value, 0, 1)) });
    const [width, height] = data.sizes[data.image[at]];
    const [x, y, size] = crop(data.box[at], data.truth[at], [width, height]);
    set(photo, { href: data.images[data.image[at]], width, height });
    set(view, { viewBox: `${x} ${y} ${size} ${size}` });
    place(truth, data.truth[at]);
    place(found, data.box[at]);
    [...table.rows].forEach((row, i) => (row.cells[1].textContent = text(scores[names[i]][at])));
    const title = `Box ${at - first + 1} of ${count - first}: ${data.classes[data.label[at] - 1]}`;
    const away = known(value) ? value - iou[at] : null;
    const verdict = away === null ? "" : `, ${text(Math.abs(away))} too ${away > 0 ? "high" : "low"}`;
    set(plane, {
      "aria-valuenow": at - first + 1,
      "aria-valuetext": `${title}, true IoU ${text(iou[at])}, ${name} ${text(value)}`,
    });
    const lines = [`${title}. True IoU ${text(iou[at])}; ${name} ${text(value)}${verdict}.`];
    if ((name === "fused" || name === "cls × ISM") && known(value)) lines.push(arithmetic(at));
    numbers.tell(...lines);
  }

  const rules = [
    // Darker on a light page, lighter on a dark one.
    ".cpm-dot{fill:color-mix(in srgb,var(--cpm-series1) 75%,currentColor);fill-opacity:.5}",
    ".cpm-ring{fill:none;stroke:currentColor;stroke-width:2.5}",
    "[hidden]{display:none}", ".cpm-plane{fill:transparent;cursor:crosshair;touch-action:pan-y}",
    ".cpm-plane:focus-visible{outline:2px solid currentColor;outline-offset:2px}",
    ".cpm-diagonal{stroke:currentColor;stroke-width:1.5;stroke-dasharray:6 5;opacity:.6;fill:none}",
    ".cpm-gap{stroke:var(--cpm-series2);stroke-width:1.8;fill:none}", ".cpm-bin{fill:var(--cpm-series2)}",
    ".cpm-crop{overflow:hidden;max-width:20rem;border-radius:.25rem}", ".cpm-chosen{font-weight:700}",
    "caption{text-align:left;padding:.3rem 0;color:inherit}", "table{width:auto;margin:.4rem 0;font-size:.85em}",
    "th{font-weight:inherit;vertical-align:bottom}", "th[scope=row]{white-space:nowrap}",
    "tr > *{padding:.1rem .3rem !important}", "tr > :first-child{padding-left:0}",
  ];
  const own = '.cpm-explorer[data-name="score_iou"]';
  const style = html("style", {}, rules.map((rule) => `${own} ${rule}`).join(""));
  const choice = kit.choice("score", {
    options: names.map((other) => [other, other]),
    value: name,
    change: (other) => {
      name = other;
      measure();
    },
  });
  const slider = kit.slider("least IoU", {
    min: data.min_iou, max: 0.95, step: 0.05, value: data.min_iou,
    change: (value) => {
      least = value;
      measure();
    },
  });
  const sample = (words, ...marks) =>
    html("li", {}, svg("svg", { viewBox: "0 0 20 12", "aria-hidden": "true" }, ...marks), words);
  const key = html("ul", { class: "cpm-legend" },
    sample("a detection", svg("circle", { cx: 10, cy: 6, r: 4, class: "cpm-dot" })),
    sample("score = IoU", svg("path", { d: "M1 11L19 1", class: "cpm-diagonal" })),
    sample("mean of each tenth of the score, and its gap to the line",
      svg("path", { d: "M10 0V12", class: "cpm-gap" }),
      svg("rect", { x: 7, y: 6, width: 6, height: 6, class: "cpm-bin" })));
  const quality = html("table", {}, heading, html("thead", {}, head), table);
  const boxes = kit.legend(["truth", "object"], ["prediction", "box of the detection"]);
  kit.root.append(
    style, kit.controls(choice, slider),
    columns(column(chart.node, key), column(view, boxes, numbers, quality)));
  measure();
  return { fuse, pearson, spearman, calibration, ranks, crop };
}
