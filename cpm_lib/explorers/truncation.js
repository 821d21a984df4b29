// An object that the border of the image cuts, and what the scores say about it (Sec. 3.3.2, Fig. 6).
function explorer(kit, data) {
  const { html, svg, set, text, clamp, columns, column, drawing, picture, place, box } = kit;
  const { side, objects, gamma } = data;
  const CURVES = [["cls", "series1"], ["ISM", "series2"], ["RSM", "series3"], ["fused", "series4"]];
  const SCORES = CURVES.filter(([name]) => objects.some(({ frames }) => frames.some((f) => f.box && name in f.scores)));

  /** Eq. 4 with the IoU score limited to 0..1; a missing module leaves its factor out. */
  const fuse = ({ cls, ISM, RSM }, power = gamma) => {
    const product = ISM === undefined ? cls : cls * clamp(ISM, 0, 1);
    return RSM === undefined ? product : product ** power * RSM ** (1 - power);
  };
  /** The part of the whole object's box that is in the image whose first column is `left`. */
  const visible = ([x1, y1, x2, y2], left) => [Math.max(x1, left), y1, x2, y2];
  const percent = (share) => `${text(100 * share, 0)} %`;

  const shares = objects[0].frames.map(({ share }) => share);
  let [object, number] = [objects[0], Math.floor(shares.length / 2)];
  const frame = () => object.frames[number];
  const closest = (values, value) =>
    values.reduce((best, other, i) => (Math.abs(other - value) < Math.abs(values[best] - value) ? i : best), 0);

  // The scene with the image in it; what is outside the image is pale.
  const width = objects[0].width;
  const view = drawing(width, side, "Scene with the image as a window in it");
  const photo = picture(object.image, 0, 0, width, side);
  const pale = [0, 1].map(() => svg("rect", { y: 0, height: side, class: "cpm-outside" }));
  const whole = box("region", object.box);
  const truth = box("truth", object.box);
  const found = box("prediction", [0, 0, 0, 0]);
  const image = svg("rect", { y: 0, width: side, height: side, class: "cpm-window" });
  const where = () => `${percent(frame().share)} of the object outside`;
  let wanted = 0;
  image.addEventListener("pointerdown", () => (wanted = frame().left));
  image.addEventListener("keydown", () => (wanted = frame().left));
  kit.movable(image, {
    label: "image: move it over the scene",
    step: object.frames.length > 1 ? object.frames[1].left - object.frames[0].left : 1,
    value: where,
    move: (dx) => {
      wanted += dx;
      go(closest(object.frames.map(({ left }) => left), wanted));
    },
  });
  view.append(photo, ...pale, whole, truth, found, image);

  // The curves.
  const last = shares[shares.length - 1] || 0.05;
  const ticks = Array.from({ length: Math.floor(last * 10 + 1e-6) + 1 }, (_, i) => i * 10);
  const chart = kit.chart("Scores and IoU over the share of the object outside the image", {
    height: 290,
    x: { from: 0, to: 100 * last, label: "share of the object's width outside the image, %", ticks },
    y: { from: 0, to: 1, label: "score, IoU", ticks: [0, 0.2, 0.4, 0.6, 0.8, 1] },
  });
  const read = { iou: (f) => f.iou, whole: (f) => f.whole };
  for (const [name] of SCORES) read[name] = (f) => f.scores[name];
  const marker = svg("line", { y1: chart.Y(0), y2: chart.Y(1), class: "cpm-now" });
  const touch = svg("rect", {
    x: chart.X(0) - 12, y: chart.Y(1), width: chart.X(100 * last) - chart.X(0) + 24, height: chart.Y(0) - chart.Y(1),
    class: "cpm-touch",
  });
  const lines = [["whole", "region"], ["iou", "ink"], ...SCORES].map(([name, kind]) => {
    const line = svg("path", { class: `cpm-line cpm-${kind}` });
    const dot = svg("circle", { r: 4.5, class: `cpm-dot cpm-${kind}` });
    chart.layer.append(line, dot);
    return { name, line, dot };
  });
  chart.layer.prepend(marker);
  chart.layer.append(touch);
  const pick = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.node.getScreenCTM().inverse());
    const share = (last * (point.x - chart.X(0))) / (chart.X(100 * last) - chart.X(0));
    go(closest(shares, share));
  };
  touch.addEventListener("pointerdown", (event) => {
    touch.setPointerCapture(event.pointerId);
    pick(event);
  });
  touch.addEventListener("pointermove", (event) => touch.hasPointerCapture(event.pointerId) && pick(event));

  /** A curve with gaps where nothing was found; a value between two gaps becomes a short stroke. */
  const curve = (value) => {
    const points = object.frames.map((f) => [100 * f.share, f.box ? value(f) : null]);
    const known = (i) => points[i] && points[i][1] !== null && points[i][1] !== undefined;
    const runs = [];
    points.forEach((point, i) => {
      if (!known(i)) return;
      if (!known(i - 1)) runs.push([]);
      runs[runs.length - 1].push([point[0], clamp(point[1], 0, 1)]);
    });
    return runs.map((run) => chart.path(run.length > 1 ? run : [run[0], [run[0][0] + 0.5, run[0][1]]])).join("");
  };

  const numbers = kit.teller();
  function arithmetic(scores) {
    const { cls, ISM, RSM } = scores;
    const product = ISM === undefined ? text(cls) : `${text(cls)} × ${text(ISM)}`;
    const powers = `(${product})^${text(gamma)} × ${text(RSM)}^${text(1 - gamma)}`;
    return `Fused score: ${RSM === undefined ? product : powers} = ${text(fuse(scores))}.`;
  }
  function show() {
    const f = frame();
    const seen = visible(object.box, f.left);
    place(truth, seen);
    place(whole, object.box);
    place(found, f.box || [0, 0, 0, 0]);
    set(image, { x: f.left, "aria-valuetext": where() });
    set(pale[0], { x: 0, width: f.left });
    set(pale[1], { x: f.left + side, width: Math.max(0, width - f.left - side) });
    set(marker, { x1: chart.X(100 * f.share), x2: chart.X(100 * f.share) });
    for (const { name, line, dot } of lines) {
      set(line, { d: curve(read[name]) });
      const value = f.box ? read[name](f) : null;
      dot.toggleAttribute("hidden", value === null || value === undefined);
      set(dot, { cx: chart.X(100 * f.share), cy: chart.Y(clamp(value || 0, 0, 1)) });
    }
    const [outside, full] = [f.left - object.box[0], object.box[2] - object.box[0]];
    const said = f.called
      ? `The highest scored box on the object says ${f.called[0]} (${text(f.called[1])}).`
      : "No box of any class is on the object.";
    const pixels = `${text(Math.max(0, outside), 0)} of ${text(full, 0)} pixels`;
    const cut = `${pixels}, ${percent(f.share)}, are outside the image.`;
    if (!f.box) {
      numbers.tell(cut, `No box of the class ${object.name} has an IoU of ${data.min_iou} with it.`, said);
      return;
    }
    const parts = SCORES.filter(([name]) => name !== "fused").map(([name]) => `${name} ${text(f.scores[name])}`);
    numbers.tell(
      cut,
      `${parts.join(", ")}.`,
      arithmetic(f.scores),
      `True IoU of the box: ${text(f.iou)} with the part in the image, ${text(f.whole)} with the whole object.`,
      said);
  }
  function go(next) {
    number = clamp(next, 0, shares.length - 1);
    slider.set(number);
    show();
  }

  const slider = kit.slider("outside the image", {
    min: 0, max: Math.max(shares.length - 1, 0), step: 1, value: number, show: (i) => percent(shares[i]), change: go,
  });
  const chooser = kit.choice("object", {
    options: objects.map(({ name }) => [name, name]),
    value: object.name,
    change: (name) => {
      object = objects.find((other) => other.name === name);
      set(photo, { href: object.image });
      show();
    },
  });
  const rules = [
    ".cpm-outside{fill:Canvas;fill-opacity:.72;pointer-events:none}",
    ".cpm-window{fill:transparent;stroke:currentColor;stroke-width:2;vector-effect:non-scaling-stroke}",
    // A finger still scrolls the page up and down.
    ".cpm-window{touch-action:pan-y}",
    ".cpm-touch{fill:transparent;cursor:col-resize;touch-action:pan-y}",
    ".cpm-now{stroke:currentColor;stroke-width:1.5;stroke-dasharray:2 3}",
    ".cpm-ink{stroke:currentColor}",
    ".cpm-dot{fill:none;stroke-width:2.5;stroke-dasharray:none}",
    ".cpm-dot[hidden]{display:none}",
  ];
  const own = '.cpm-explorer[data-name="truncation"]';
  const style = html("style", {}, rules.map((rule) => `${own} ${rule}`).join(""));
  const key = kit.legend(
    ["truth", "the part in the image"], ["region", "the whole object"], ["prediction", "box found"]);
  const curves = kit.legend(
    ...SCORES.map(([name, kind]) => [kind, name]), ["ink", "true IoU"], ["region", "IoU with the whole object"]);
  kit.root.append(
    style, kit.controls(slider, chooser), columns(column(view, key, numbers), column(chart.node, curves)));
  show();
  return { fuse, visible, iou: kit.iou };
}
