// The IoU threshold of a hit: boxes of one picture that are hits or misses, and AP of several rows (Fig. 8a).
function explorer(kit, data) {
  const { html, svg, set, text, clamp, columns, column, drawing, picture, box, place } = kit;
  const { thresholds, rows, truth } = data;
  const objectLabels = data.truth_labels;
  const DONE = 1e-10;

  /** COCO's matching: the object that each box, best score first, finds at this threshold; -1 for none. */
  const matches = (boxes, labels, objects, classes, threshold) => {
    const taken = objects.map(() => false);
    return boxes.map((found, row) => {
      let [best, object] = [Math.min(threshold, 1 - DONE), -1];
      objects.forEach((other, index) => {
        if (taken[index] || classes[index] !== labels[row]) return;
        const overlap = kit.iou(found, other);
        if (overlap < best) return;
        [best, object] = [overlap, index];
      });
      if (object >= 0) taken[object] = true;
      return object;
    });
  };
  /** Largest IoU of a box with an object of its class; 0 if there is none. */
  const bestIou = (found, label, objects, classes) =>
    Math.max(0, ...objects.map((other, index) => (classes[index] === label ? kit.iou(found, other) : 0)));
  const mean = (values) => {
    const defined = values.filter((value) => value !== null);
    return defined.length ? defined.reduce((sum, value) => sum + value, 0) / defined.length : null;
  };
  const ap = (row, size, index) => rows[row].ap[size][index];
  const gain = (size, index) => {
    const [last, offsets] = [rows.length - 1, rows.findIndex((row) => row.name.startsWith("offsets"))];
    const [ours, theirs] = [ap(last, size, index), offsets < 0 ? null : ap(offsets, size, index)];
    return ours === null || theirs === null ? null : ours - theirs;
  };

  const names = Object.keys(data.boxes);
  /** How many of the picture's boxes of one kind are hits. */
  const count = (name, index) =>
    matches(data.boxes[name], data.labels, truth, objectLabels, thresholds[index]).filter((found) => found >= 0).length;
  let [at, size, which] = [data.start, "all", names.at(-1)];

  // The picture.
  const [width, height] = data.size;
  const scene = drawing(width, height, "Picture with its objects and the boxes found");
  const marks = svg("g", {});
  scene.append(picture(data.image, 0, 0, width, height), ...truth.map((object) => box("truth", object)), marks);
  /** Of the boxes in the picture; whether they are hits is told by the line, solid or dotted. */
  const colour = () => rows.find((row) => row.name === which)?.colour ?? "prediction";
  const letter = Math.max(width, height) / 26;
  /** Labels that would lie on one another move down. */
  const free = (x, y, taken) => {
    while (taken.some(([a, b]) => Math.abs(a - x) < 3.6 * letter && Math.abs(b - y) < letter)) y += letter * 0.5;
    taken.push([x, y]);
    return y;
  };
  const drawBoxes = (found, objects) => {
    const taken = [];
    marks.replaceChildren(...found.flatMap((one, row) => {
      const hit = objects[row] >= 0;
      const value = text(bestIou(one, data.labels[row], truth, objectLabels));
      const x = clamp((one[0] + one[2]) / 2, letter * 1.6, width - letter * 1.6);
      const y = free(x, clamp(one[1] + letter * 0.9, letter, height - 1), taken);
      return [
        place(svg("rect", { class: `cpm-box cpm-${colour()} ${hit ? "cpm-hit" : "cpm-miss"}` }), one),
        svg("text", { x, y, class: "cpm-value", "text-anchor": "middle" }, `${hit ? "✓" : "✗"} ${value}`),
      ];
    }));
  };

  // AP over the thresholds.
  const first = thresholds[0];
  const last = thresholds.at(-1);
  const values = rows.flatMap((row) => Object.values(row.ap).flat()).filter((value) => value !== null);
  const top = Math.max(10, Math.ceil(Math.max(0, ...values) / 10) * 10);
  const steps = Array.from({ length: Math.floor(top / 20) + 1 }, (_, index) => 20 * index);
  const diagram = kit.chart("AP against the IoU threshold, one line per row of the table", {
    width: 350, height: 260,
    x: { from: first, to: last, label: "IoU threshold", ticks: [0.5, 0.6, 0.7, 0.8, 0.9] },
    y: { from: 0, to: top, label: "AP (%)", ticks: steps },
  });
  const lines = rows.map((row) => svg("path", { class: `cpm-line cpm-${row.colour}` }));
  const dots = rows.map((row) => svg("circle", { r: 4, class: `cpm-dot cpm-${row.colour}` }));
  const rule = svg("line", { y1: diagram.Y(0), y2: diagram.Y(top), class: "cpm-rule" });
  const handle = kit.grip({ r: 7, class: "cpm-grip" });
  const pitch = diagram.X(thresholds[1]) - diagram.X(first);
  let rest = 0;
  kit.movable(handle, {
    label: "IoU threshold on the axis",
    step: pitch,
    value: () => text(thresholds[at]),
    move: (dx) => {
      rest += dx;
      const moved = Math.round(rest / pitch);
      rest -= moved * pitch;
      go(at + moved);
    },
  });
  diagram.layer.append(rule, ...lines, ...dots, handle);

  // The table is the legend as well.
  const swatch = (row) => {
    const line = svg("path", { d: "M0 6H24", class: `cpm-line cpm-${row.colour}` });
    return svg("svg", { viewBox: "0 0 24 12", class: "cpm-swatch", "aria-hidden": "true" }, line);
  };
  const now = rows.map(() => html("td", {}));
  const means = rows.map(() => html("td", {}));
  const heading = html("th", { scope: "col" });
  const table = html("table", { class: "cpm-rows" },
    html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "boxes"), heading,
      html("th", { scope: "col" }, "AP, all ten"))),
    html("tbody", {}, rows.map((row, index) =>
      html("tr", {}, html("th", { scope: "row" }, swatch(row), row.name), now[index], means[index]))));

  const paperCells = data.paper.map((entry) => Object.values(entry.over).map((value) => html("td", {}, `+${value}`)));
  const paper = html("table", { class: "cpm-paper" },
    html("caption", {},
      "Printed in the paper for COCO, other data and other networks: gain of CPM R-CNN in AP (Fig. 8a)"),
    html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "IoU threshold"),
      Object.keys(data.paper[0].over).map((name) => html("th", { scope: "col" }, `over ${name}`)))),
    html("tbody", {}, data.paper.map((entry, index) =>
      html("tr", {}, html("th", { scope: "row" }, text(thresholds[entry.at])), paperCells[index]))));

  const numbers = kit.teller();
  function show() {
    const threshold = thresholds[at];
    const found = data.boxes[which];
    const objects = matches(found, data.labels, truth, objectLabels, threshold);
    drawBoxes(found, objects);
    key.replaceChildren(
      kit.legend(["truth", "object"], [`${colour()} cpm-hit`, "hit ✓"], [`${colour()} cpm-miss`, "miss ✗"]),
      html("p", { class: "cpm-note" }, "The number is the IoU with the object of its class that fits best."));
    const hits = objects.filter((object) => object >= 0).length;
    rows.forEach((row, index) => {
      const points = thresholds.map((value, step) => [value, ap(index, size, step)]);
      set(lines[index], { d: diagram.path(points.filter((point) => point[1] !== null)) });
      const value = ap(index, size, at);
      set(dots[index], { cx: diagram.X(threshold), cy: diagram.Y(value ?? 0) });
      dots[index].toggleAttribute("hidden", value === null);
      now[index].textContent = text(value, 1);
      means[index].textContent = text(mean(row.ap[size]), 1);
    });
    heading.textContent = `AP at ${text(threshold)}`;
    set(rule, { x1: diagram.X(threshold), x2: diagram.X(threshold) });
    set(handle.at(diagram.X(threshold), diagram.Y(0)), { "aria-valuetext": text(threshold) });
    data.paper.forEach((entry, index) =>
      paperCells[index].forEach((cell) => cell.classList.toggle("cpm-here", entry.at === at)));
    const more = gain(size, at);
    numbers.tell(
      `${hits} of ${found.length} boxes are hits at IoU ${text(threshold)}, ${found.length - hits} are misses; ` +
        `${hits} of ${truth.length} objects are found.`,
      `Hits at ${text(threshold)} by ${names.map((name) => `${name}: ${count(name, at)}`).join(", ")}.`,
      more === null ? "" : `AP of ${rows.at(-1).name}, minus offsets: ${more < 0 ? "" : "+"}${text(more, 1)}.`);
  }

  const threshold = kit.slider("IoU threshold", {
    min: first, max: last, step: 0.05, value: thresholds[at], show: (value) => text(value),
    change: (value) => go(Math.round((value - first) / 0.05)),
  });
  function go(index) {
    at = clamp(index, 0, thresholds.length - 1);
    threshold.set(thresholds[at]);
    show();
  }

  const style = html("style", {},
    ".cpm-explorer .cpm-hit{stroke-width:3}.cpm-explorer .cpm-miss{stroke-width:2.4;stroke-dasharray:2 3}" +
    `.cpm-explorer text.cpm-value{font-size:${letter}px;font-weight:600;fill:#111;stroke:#fff;` +
    `stroke-width:${letter / 4}px;paint-order:stroke;pointer-events:none}` +
    ".cpm-fused{stroke:var(--cpm-stage3);stroke-dasharray:7 4}.cpm-offsets{stroke:currentColor;stroke-dasharray:2 3}" +
    ".cpm-explorer .cpm-dot{fill:#fff;stroke-width:2;stroke-dasharray:none}.cpm-dot[hidden]{display:none}" +
    ".cpm-rule{stroke:currentColor;stroke-width:1;opacity:.7}.cpm-swatch{display:inline-block!important;" +
    "width:24px!important;height:12px!important;margin-right:.4rem;vertical-align:middle}" +
    ".cpm-paper{margin-top:.8rem;border:1px dashed currentColor}.cpm-paper caption{text-align:left;caption-side:top;" +
    "font-size:.85rem;color:inherit}.cpm-paper .cpm-here{font-weight:700;outline:2px solid;outline-offset:-2px}" +
    ".cpm-note{margin:0 0 .4rem;font-size:.85rem}.cpm-explorer .cpm-rows th{font-weight:400}" +
    ".cpm-explorer .cpm-rows{width:100%;font-size:.88rem}.cpm-explorer .cpm-rows :is(th,td){padding:.1rem .2rem}");
  const key = html("div", {});
  const chosen = kit.choice("boxes in the picture", {
    options: names.map((name) => [name, name]),
    value: which,
    change: (name) => {
      which = name;
      show();
    },
  });
  const sizes = kit.choice("AP of objects", {
    options: ["all", "small", "medium", "large"].map((name) => [name, name]),
    value: size,
    change: (name) => {
      size = name;
      show();
    },
  });
  const seeds = data.seeds > 1 ? `Mean of ${data.seeds} trainings on drawn shapes.` : "One training on drawn shapes.";
  kit.root.append(style, kit.controls(threshold), columns(
    column(scene, key, chosen, numbers),
    column(diagram.node, table, html("p", { class: "cpm-source" }, seeds), sizes, paper)));
  show();
  return { matches, bestIou, count, ap, gain, mean, iou: kit.iou };
}
