// The fused score at any gamma: the order of one image's detections, precision over recall, and AP (Eq. 4, Fig. 7).
function explorer(kit, data) {
  const { html, svg, set, text, columns, column, drawing, picture, place, box } = kit;
  const unpack = (packed, Type) => new Type(Uint8Array.from(atob(packed), (c) => c.charCodeAt(0)).buffer);
  /** Numbers in 0..1, three bytes each. */
  const unpackShares = (packed) => {
    const bytes = unpack(packed, Uint8Array);
    const whole = (k) => bytes[k] + 256 * bytes[k + 1] + 65536 * bytes[k + 2];
    return Float64Array.from({ length: bytes.length / 3 }, (_, k) => whole(3 * k) / (2 ** 24 - 1));
  };
  const [cls, iou, rsm] = data.parts.map((part) => part && unpackShares(part));
  const sizes = unpack(data.sizes, Uint16Array);
  const Index = Math.max(cls.length, data.objects) <= 2 ** 16 ? Uint16Array : Uint32Array;
  const [pairRow, pairObject, pairLevel, pairIou] =
    [Index, Index, Uint8Array, Float32Array].map((Type, k) => unpack(data.pairs[k], Type));
  const crowd = new Uint8Array(data.objects);
  data.crowd.forEach((object) => (crowd[object] = 1));
  const inverted = new Set(data.inverted);  // boxes with negative area: no miss counts for them, as in pycocotools
  const LEVELS = data.thresholds.map((_, level) => level);
  const MOST = 100;  // of a class and image, as in COCO

  // Detections lie class by class and image by image; `group` is that place, `first` where their pairs start.
  const group = new Uint32Array(cls.length);
  const first = new Uint32Array(cls.length + 1);
  let from = 0;
  sizes.forEach((size, number) => group.fill(number, from, (from += size)));
  pairRow.forEach((row) => first[row + 1]++);
  for (let row = 0; row < cls.length; row++) first[row + 1] += first[row];
  let [nextGroup, nextRow] = [0, 0];
  const classes = data.classes.map(([groups, objects]) => {
    const start = nextRow;
    for (const last = nextGroup + groups; nextGroup < last; nextGroup++) nextRow += sizes[nextGroup];
    return { start, end: nextRow, objects };
  });

  /** Eq. 4 of one detection. */
  const fuse = (row, gamma) => (cls[row] * (iou ? iou[row] : 1)) ** gamma * rsm[row] ** (1 - gamma);
  /** Rows of each class, best score first; equal scores stay in their order, as in pycocotools. */
  const rank = (scores) => classes.map(({ start, end }) =>
    Array.from({ length: end - start }, (_, k) => start + k).sort((a, b) => scores[b] - scores[a]));

  /** COCO's greedy matching of one class at one IoU threshold: precision and recall at every hit. */
  function match(order, level, objects, hit) {
    const [seen, taken] = [new Uint16Array(sizes.length), new Uint8Array(crowd.length)];
    const precision = [];
    let total = 0;
    for (const row of order) {
      if (seen[group[row]]++ >= MOST) continue;
      let [best, fit] = [-1, 0];
      for (let pair = first[row]; pair < first[row + 1]; pair++) {
        const object = pairObject[pair];
        if (pairLevel[pair] <= level || (taken[object] && !crowd[object])) continue;
        if (best >= 0 && !crowd[best] && crowd[object]) break;
        if (pairIou[pair] < fit) continue;
        [best, fit] = [object, pairIou[pair]];
      }
      if (best >= 0) taken[best] = 1;
      if (best >= 0 && crowd[best]) continue;  // counts neither for nor against
      if (best < 0) {
        total += !inverted.has(row);
        continue;
      }
      total += 1;
      hit[row] = 1;
      precision.push((precision.length + 1) / (total + Number.EPSILON));
    }
    return { precision, recall: precision.map((_, k) => (k + 1) / objects) };
  }
  /** COCO's 101 points: the best precision at this recall or a higher one. */
  function interpolate({ precision, recall }) {
    for (let k = precision.length - 2; k >= 0; k--) precision[k] = Math.max(precision[k], precision[k + 1]);
    let k = 0;
    return Array.from({ length: 101 }, (_, point) => {
      while (k < recall.length && recall[k] < point * 0.01) k++;
      return k < recall.length ? precision[k] : 0;
    });
  }
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  /** Mean over the classes at these IoU thresholds: precision at 101 recalls, AP in 0..100, and who hits [rows]. */
  function evaluate(scores, levels) {
    const [orders, hit] = [rank(scores), new Uint8Array(cls.length)];
    const curves = levels.flatMap((level) => classes.flatMap(({ objects }, k) =>
      objects ? [interpolate(match(orders[k], level, objects, level === levels[0] ? hit : []))] : []));
    const curve = Array.from({ length: 101 }, (_, point) => mean(curves.map((curve) => curve[point])));
    return { curve, ap: 100 * mean(curve), hit };
  }

  const known = new Map();
  const levelsOf = (threshold) => (threshold === "all" ? LEVELS : [data.thresholds.indexOf(threshold)]);
  /** Judged at gamma, or by the classification score alone where gamma is null; remembered. */
  function judged(gamma, threshold) {
    const key = `${gamma} ${threshold}`;
    if (!known.has(key)) {
      const scores = gamma === null ? cls : Float64Array.from(cls, (_, row) => fuse(row, gamma));
      known.set(key, evaluate(scores, levelsOf(threshold)));
    }
    return known.get(key);
  }

  const FIFTHS = [0, 0.2, 0.4, 0.6, 0.8, 1];
  const GAMMAS = Array.from({ length: 21 }, (_, k) => Math.round(k * 5) / 100);
  const NAMES = { all: "AP", 0.5: "AP50", 0.75: "AP75", 0.9: "AP90" };
  let [gamma, threshold, chosen] = [data.start, "all", 0];
  const tried = new Set([gamma]);

  // One image: its picture, and the list of its best detections.
  const [width, height] = data.size;
  const scene = drawing(width, height, "Image with its objects and the listed detections");
  const listed = data.listed.map((entry) => ({ ...entry, frame: box("prediction", entry.box) }));
  const names = listed.map(() => svg("text", { "text-anchor": "middle", class: "cpm-rank" }));
  scene.append(picture(data.image, 0, 0, width, height), ...data.objects_shown.map((object) => box("truth", object)),
    ...listed.map(({ frame }) => frame), ...names);
  names.forEach((name, k) => {
    name.style.fontSize = `${Math.max(width, height) / 16}px`;
    // Spread along the upper edge, so that the numbers of equal boxes stay apart.
    const [x1, y1, x2] = listed[k].box;
    const [across, down] = [(k + 1) / (listed.length + 1), Math.max(width, height) / 15];
    set(name, { x: x1 + (x2 - x1) * across, y: Math.max(y1, 0) + down });
  });
  const byClass = listed.map((_, k) => k).sort((a, b) => cls[listed[b].row] - cls[listed[a].row]);
  const rows = listed.map((entry, k) => listRow(entry, () => {
    chosen = k;
    show();
  }));
  const list = html("ol", { class: "cpm-list" });
  const sum = kit.teller();

  function listRow(entry, press) {
    const [x1, y1, x2, y2] = entry.box;
    const side = Math.max(x2 - x1, y2 - y1, 1) * 1.3;
    const corner = [(x1 + x2 - side) / 2, (y1 + y2 - side) / 2];
    const viewBox = `${corner[0]} ${corner[1]} ${side} ${side}`;
    const crop = svg("svg", { viewBox, class: "cpm-crop", "aria-hidden": "true" },
      picture(data.image, 0, 0, width, height), box("prediction", entry.box));
    const [number, verdict, score, moved] = Array.from({ length: 4 }, () => html("span", {}));
    const bar = html("span", { class: "cpm-bar" });
    const button = html("button", { type: "button", class: "cpm-row" }, number, crop,
      html("span", { class: "cpm-words" }, html("span", {}, `${entry.class}, IoU ${text(entry.iou)} `), verdict,
        html("span", { class: "cpm-track", "aria-hidden": "true" }, bar)), score, moved);
    button.addEventListener("click", press);
    return { node: html("li", {}, button), button, number, verdict, score, moved, bar };
  }

  /** Put the rows in a new order, each gliding to its place. */
  function arrange(order) {
    const placed = list.hasChildNodes();
    const before = rows.map(({ node }) => node.offsetTop);
    const focused = document.activeElement;
    list.replaceChildren(...order.map((k) => rows[k].node));
    if (list.contains(focused)) focused.focus({ preventScroll: true });
    if (!placed || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    rows.forEach(({ node }, k) => {
      const by = before[k] - node.offsetTop;
      if (by) node.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], 300);
    });
  }

  function showImage() {
    const scores = listed.map(({ row }) => fuse(row, gamma));
    const order = listed.map((_, k) => k).sort((a, b) => scores[b] - scores[a]);
    const { hit } = judged(gamma, threshold);
    arrange(order);
    order.forEach((k, position) => {
      const [parts, { row, frame }] = [rows[k], listed[k]];
      const up = byClass.indexOf(k) - position;
      parts.number.textContent = `${position + 1}`;
      parts.verdict.textContent = hit[row] ? "✓ hit" : "✗ no hit";
      parts.score.textContent = text(scores[k]);
      parts.moved.textContent = up > 0 ? `▲${up}` : up < 0 ? `▼${-up}` : "=";
      parts.bar.style.width = `${100 * scores[k]}%`;
      set(parts.button, { "aria-pressed": String(k === chosen) });
      frame.classList.toggle("cpm-chosen", k === chosen);
      names[k].textContent = `${position + 1}`;
    });
    if (!listed.length) return sum.tell("This image has no detection to rank.");
    const { row } = listed[chosen];
    const product = iou ? `(${text(cls[row], 3)} × ${text(iou[row], 3)})` : text(cls[row], 3);
    sum.tell(
      `Number ${order.indexOf(chosen) + 1}, ${listed[chosen].class}: ${product}^${text(gamma)} × ` +
        `${text(rsm[row], 3)}^${text(1 - gamma)} = ${text(scores[chosen], 3)}.`,
      `${iou ? "(cls × ISM)" : "cls"}^γ × RSM^(1 − γ); by the classification score alone it is number ` +
        `${byClass.indexOf(chosen) + 1}.`);
  }

  // All images: AP over gamma, and precision over recall.
  const [hill, slope, total] = [html("div", {}), html("div", {}), kit.teller()];
  const line = (chart, points, kind) => svg("path", { d: chart.path(points), class: `cpm-line cpm-${kind}` });

  function showHill() {
    const base = judged(null, threshold).ap;
    const drawn = [...tried].sort((a, b) => a - b).map((value) => [value, judged(value, threshold).ap]);
    // The ends of the curve, so that the axis stays while it fills.
    const span = [0, 0.5, 1].map((value) => judged(value, threshold).ap).concat(base, drawn.map(([, ap]) => ap));
    const [least, most] = [Math.min(...span), Math.max(...span)];
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10].find((size) => (most - least) / size <= 5) || 20;
    const [low, high] = [Math.floor(least / step - 0.2) * step, Math.ceil(most / step + 0.2) * step];
    const marks = Math.round((high - low) / step) + 1;
    const ticks = Array.from({ length: marks }, (_, k) => Number((low + k * step).toFixed(1)));
    const chart = kit.chart(`${NAMES[threshold]} over gamma, for the values tried`, {
      width: 400, height: 230,
      x: { from: 0, to: 1, label: "γ (0: RSM alone, 1: classification × ISM alone)", ticks: FIFTHS },
      y: { from: low, to: high, label: "", ticks },
    });
    const best = drawn.reduce((a, b) => (b[1] > a[1] ? b : a));
    chart.layer.append(line(chart, [[0, base], [1, base]], "series2"), line(chart, drawn, "series1"),
      ...drawn.map(([value, ap]) => svg("circle", { cx: chart.X(value), cy: chart.Y(ap), r: 3.2, class: "cpm-dot" })),
      svg("circle", { cx: chart.X(gamma), cy: chart.Y(judged(gamma, threshold).ap), r: 6.5, class: "cpm-dot" }));
    if (drawn.length > 2) {
      const [cx, cy] = [chart.X(best[0]), chart.Y(best[1])];
      chart.layer.append(svg("circle", { cx, cy, r: 10, class: "cpm-best" }));
    }
    // Above the axis, where long numbers at its ticks leave it room.
    hill.replaceChildren(html("p", { class: "cpm-note" }, `${NAMES[threshold]} (%)`), chart.node);
    const ap = judged(gamma, threshold).ap;
    const [some, all] = data.images;
    total.tell(
      `γ = ${text(gamma)}: ${NAMES[threshold]} ${text(ap)}, by the classification score alone ${text(base)}; ` +
        `difference ${ap >= base ? "+" : ""}${text(ap - base)}.`,
      `Values tried: ${drawn.length}; best at γ = ${text(best[0])} with ${text(best[1])}.`,
      `${cls.length} detections on ${some < all ? `${some} of ${all}` : all} images.`);
  }

  function showSlope() {
    const chart = kit.chart("Precision over recall, mean over the classes", {
      width: 400, height: 230,
      x: { from: 0, to: 1, label: "recall: share of the objects found", ticks: FIFTHS },
      y: { from: 0, to: 1, label: "", ticks: FIFTHS },
    });
    const points = (value) => judged(value, threshold).curve.map((precision, k) => [k / 100, precision]);
    chart.layer.append(line(chart, points(null), "series2"), line(chart, points(gamma), "series1"));
    slope.replaceChildren(html("p", { class: "cpm-note" }, "precision"), chart.node);
  }

  function show() {
    showImage();
    showHill();
    showSlope();
  }

  /** One at a time, so that the page stays awake. */
  function tryAll() {
    const next = GAMMAS.find((value) => !tried.has(value));
    if (next === undefined) return;
    tried.add(next);
    showHill();
    setTimeout(tryAll, 0);
  }
  const slider = kit.slider("gamma", {
    min: 0, max: 1, step: 0.05, value: gamma,
    change: (value) => {
      gamma = value;
      tried.add(value);
      show();
    },
  });
  const controls = kit.controls(
    slider,
    kit.choice("a hit from IoU", {
      options: [["all", "mean of 0.5 to 0.95"], [0.5, "0.5"], [0.75, "0.75"], [0.9, "0.9"]],
      value: threshold,
      change: (value) => {
        threshold = value;
        show();
      },
    }),
    kit.button("try every gamma", tryAll),
    kit.button("start again", () => {
      tried.clear();
      tried.add((gamma = data.start));
      slider.set(gamma);
      show();
    }));
  // Its own classes only: other explorers may be on the page.
  const rules = (...lines) => lines.map((rule) => `.cpm-explorer[data-name=gamma] ${rule}`).join("\n");
  const style = html("style", {}, rules(
    "text.cpm-rank{fill:#fff;stroke:#000;stroke-width:.25em;paint-order:stroke;font-weight:700}",
    ".cpm-box.cpm-chosen{stroke-width:4}",
    ".cpm-note{margin:.2rem 0;font-size:.85rem}",
    ".cpm-list{list-style:none;margin:0;padding:0}",
    ".cpm-list li{margin:0}",
    "button.cpm-row{display:grid;grid-template-columns:1.2em 2.6rem 1fr 2.6em 2em;gap:.5rem;align-items:center;" +
      "width:100%;text-align:left;border-color:transparent;padding:.15rem .3rem}",
    "button.cpm-row[aria-pressed=true]{border-color:currentColor}",
    ".cpm-crop{width:2.6rem;height:2.6rem;overflow:hidden;border-radius:.2rem}",
    ".cpm-crop .cpm-box{stroke-width:1.4}",
    ".cpm-track{display:block;height:.35rem;margin-top:.2rem;border-radius:.2rem;" +
      "background:color-mix(in srgb,currentColor 15%,transparent)}",
    ".cpm-bar{display:block;height:100%;border-radius:.2rem;background:var(--cpm-prediction)}",
    ".cpm-dot{fill:var(--cpm-series1)}",
    ".cpm-best{fill:none;stroke:currentColor;stroke-width:1.5}"));
  const note = html("p", { class: "cpm-note" }, "▲▼ places won or lost against the classification score alone");
  kit.root.append(style, controls,
    columns(
      column(scene, kit.legend(["truth", "object"], ["prediction", "detection, numbered by its rank"])),
      column(list, note, sum)),
    columns(column(hill), column(slope)),
    kit.legend(["series1", "fused score"], ["series2", "classification score alone"]), total);
  show();
  return {
    fuse,
    ap: (value, at) => judged(value, at).ap,
    curve: (value, at) => judged(value, at).curve,
    order: (value) => listed.map((_, k) => k).sort((a, b) => fuse(listed[b].row, value) - fuse(listed[a].row, value)),
  };
}
