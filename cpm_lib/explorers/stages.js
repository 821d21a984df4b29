// A detection on its way: the proposal, and the box and region of every stage (Fig. 3, Eq. 1).
function explorer(kit, data) {
  const { html, svg, set, text, columns, column, drawing, picture, place, box } = kit;
  const { items, ratios, map_size: mapSize } = data;

  /** The region: same centre, sides `m` times as long. */
  const extend = ([x1, y1, x2, y2], m) => {
    const [dx, dy] = [((x2 - x1) * (m - 1)) / 2, ((y2 - y1) * (m - 1)) / 2];
    return [x1 - dx, y1 - dy, x2 + dx, y2 + dy];
  };
  const area = ([x1, y1, x2, y2]) => Math.max(0, x2 - x1) * Math.max(0, y2 - y1);
  const shared = (a, b) =>
    area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  /** Width in pixels of a heatmap cell over a RoI. */
  const cell = ([x1, , x2], m) => (m * (x2 - x1)) / mapSize;
  const formulas = { extend, cell, iou: kit.iou };

  if (!items.length) {
    kit.root.append(html("p", {}, "No detection overlaps an object of its class here."));
    return formulas;
  }
  const last = items[0].boxes.length - 1;
  const STEPS = Array.from({ length: last + 1 }, (_, step) => step);
  const kind = (step) => (step ? `stage${Math.min(step, 3)}` : "proposal");
  const signed = (value) => (value < 0 ? text(value) : `+${text(value)}`);
  const word = (step) => (step ? `stage ${step}` : "proposal");
  const ious = items.map(({ boxes, truth }) => boxes.map((each) => kit.iou(each, truth)));
  let [item, step] = [0, last];

  // The picture.
  const scene = drawing(100, 100, "The object, the box of the chosen stage, the box before it, and the region", {
    class: "cpm-scene",
  });
  const outside = svg("rect", { class: "cpm-outside" });
  const image = picture(items[0].image, 0, 0, 1, 1);
  const truth = box("truth", items[0].truth);
  const region = box("region", items[0].truth);
  const before = box("proposal", items[0].truth);
  const current = box("stage1", items[0].truth);
  for (const moving of [region, current]) moving.classList.add("cpm-moving");
  scene.append(outside, image, region, before, truth, current);

  // IoU over the stages; the other detections stay faint behind the chosen one.
  const chart = kit.chart("IoU with the object after every stage", {
    width: 420, height: 250,
    x: { from: -0.15, to: last + 0.15, label: "stage (0: proposal)", ticks: STEPS },
    y: { from: 0, to: 1, label: "IoU", ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] },
  });
  const line = (number) => chart.path(ious[number].map((value, at) => [at, value]));
  const others = items.map((_, number) => svg("path", { d: line(number), class: "cpm-line cpm-other" }));
  const chosen = svg("path", { class: "cpm-line cpm-chosen" });
  const marks = STEPS.map((at) => svg("circle", { r: 5, cx: chart.X(at), class: `cpm-${kind(at)}` }));
  const ring = svg("circle", { r: 10, class: "cpm-ring" });
  chart.layer.append(...others, chosen, ...marks, ring);

  const head = ["", "IoU", "box", "region", "cell"];
  const rows = STEPS.map(() => html("tr", {}));
  const table = html("table", {},
    html("caption", {}, "Widths in pixels"),
    html("thead", {}, html("tr", {}, head.map((name) => html("th", { scope: "col" }, name)))),
    html("tbody", {}, rows));
  const numbers = kit.teller();

  function show() {
    const { boxes, truth: object, view, at } = items[item];
    const [now, from] = [boxes[step], boxes[Math.max(step - 1, 0)]];
    place(outside, view);
    scene.setAttribute("viewBox", `${view[0]} ${view[1]} ${view[2] - view[0]} ${view[3] - view[1]}`);
    set(image, { href: items[item].image, x: at[0], y: at[1], width: at[2] - at[0], height: at[3] - at[1] });
    place(truth, object);
    place(current, now);
    place(before, from);
    place(region, step ? extend(from, ratios[step - 1]) : now);
    current.setAttribute("class", `cpm-box cpm-moving cpm-${kind(step)}`);
    before.setAttribute("class", `cpm-box cpm-${kind(Math.max(step - 1, 0))} cpm-before`);
    for (const other of [before, region]) other.style.display = step ? "" : "none";
    set(chosen, { d: line(item) });
    marks.forEach((mark, number) => set(mark, { cy: chart.Y(ious[item][number]) }));
    set(ring, { cx: chart.X(step), cy: chart.Y(ious[item][step]) });
    rows.forEach((row, number) => {
      const [own, entering] = [boxes[number], boxes[number - 1]];
      const ratio = ratios[number - 1];
      const cells = [
        text(ious[item][number]),
        `${text(own[2] - own[0], 1)} × ${text(own[3] - own[1], 1)}`,
        number ? text(ratio * (entering[2] - entering[0]), 1) : "–",
        number ? text(cell(entering, ratio)) : "–",
      ];
      row.replaceChildren(html("th", { scope: "row" }, word(number)), ...cells.map((value) => html("td", {}, value)));
      row.classList.toggle("cpm-now", number === step);
    });
    const common = shared(now, object);
    const [one, other, both] = [area(now), area(object), common].map((value) => text(value, 0));
    const sum = `IoU = ${both} / (${one} + ${other} − ${both}) = ${text(ious[item][step])}`;
    if (!step) return numbers.tell(`Proposal: ${sum}.`, "No heatmap yet: stage 1 lays its region around this box.");
    const wide = from[2] - from[0];
    const gain = ious[item][step] - ious[item][step - 1];
    const m = ratios[step - 1];
    return numbers.tell(
      `Stage ${step}: ${sum}, ${signed(gain)} over the ${step > 1 ? `box of stage ${step - 1}` : "proposal"}.`,
      `Its region is ${text(m)} × ${text(wide, 1)} = ${text(m * wide, 1)} pixels wide, ` +
        `one cell ${text(m * wide, 1)} / ${mapSize} = ${text(cell(from, m))}.`);
  }

  const slider = kit.slider("stage", {
    min: 0, max: last, step: 1, value: step, show: word,
    change: (value) => {
      step = value;
      show();
    },
  });
  const go = (to) => {
    step = to;
    slider.set(to);
    show();
  };
  const controls = kit.controls(
    kit.choice("detection", {
      options: items.map(({ name }, number) => {
        const gain = ious[number][last] - ious[number][0];
        return [number, `${number + 1}: ${name}, ${signed(gain)}`];
      }),
      value: item,
      change: (number) => {
        item = number;
        show();
      },
    }));
  const steps = kit.controls(slider, kit.button("next", () => go(step === last ? 0 : step + 1)));
  const style = html("style", {}, [
    ".cpm-moving{transition:x .3s,y .3s,width .3s,height .3s}",
    ".cpm-scene{overflow:hidden}",
    ".cpm-outside{fill:currentColor;opacity:.07}",
    ".cpm-before{opacity:.7}",
    ".cpm-other{stroke:currentColor;opacity:.2;stroke-width:1.5}",
    ":is(.cpm-chosen,.cpm-ring){fill:none;stroke:currentColor;stroke-width:2}",
    ...["proposal", "stage1", "stage2", "stage3"].map((name) => `circle.cpm-${name}{fill:var(--cpm-${name})}`),
    "tr.cpm-now{font-weight:600}",
    "th[scope=row]{font-weight:inherit}",
    "table{white-space:nowrap;margin:.5rem 0}",
    "caption{text-align:left;caption-side:bottom;padding:.2rem 0}",
    // The book has wide cells, too wide for a telephone.
    ":is(th,td){padding:.1rem .22rem!important}",
  ].map((rule) => `.cpm-explorer[data-name=stages] ${rule}`).join("") +
    "@media (prefers-reduced-motion:reduce){.cpm-explorer .cpm-moving{transition:none}}");
  const key = kit.legend(
    ["truth", "object"], ...STEPS.map((at) => [kind(at), at ? `box of ${word(at)}` : "proposal"]),
    ["region", "region of the heatmaps"]);
  kit.root.append(
    style, controls, steps, columns(column(scene, key), column(numbers, chart.node)), table);
  show();
  return formulas;
}
