// Learning rate, length and command for a number of GPUs and images (Sec. 3.4.2; Goyal et al., 2017).
function explorer(kit, data) {
  const { html, svg, set, text, clamp, columns, column } = kit;
  const { usual } = data;

  /** To a whole number as Python does it: a half goes to the even neighbour. */
  const round = (value) => (Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));
  /** The schedule for batches of `images`: rate in proportion, as many images seen, drops at the same share. */
  const scaled = (images) => {
    const iterations = round((usual.iterations * usual.images_per_batch) / images);
    return {
      images, iterations,
      lr: (usual.lr * images) / usual.images_per_batch,
      steps: usual.steps.map((step) => round((step * iterations) / usual.iterations)),
      warmup: Math.min(usual.warmup_iterations, Math.floor(iterations / 2)),
    };
  };
  /** Learning rate at `iteration`, counted from 1. */
  const rate = (plan, iteration) => {
    if (iteration <= plan.warmup) {
      const part = iteration / plan.warmup;
      return plan.lr * (usual.warmup_factor * (1 - part) + part);
    }
    return plan.lr * 0.1 ** plan.steps.filter((step) => step <= iteration).length;
  };
  /** Words of the command; the learning rate is left to `cpm train`, which applies the rule by itself. */
  const command = (gpus, each, parts) => {
    const { images, iterations } = scaled(gpus * each * parts);
    const words = [...data.command];
    const insert = (option, after, ...more) => words.splice(words.indexOf(option) + after, 0, ...more);
    words[words.indexOf("--nproc-per-node") + 1] = String(gpus);
    if (iterations !== usual.iterations) insert("--set", 0, "--iterations", String(iterations));
    if (parts > 1) insert("--set", 1, `solver.accumulate=${parts}`);
    if (images !== usual.images_per_batch) insert("--set", 1, `solver.images_per_batch=${images}`);
    return words;
  };
  const passes = (plan, iteration = plan.iterations) => (iteration * plan.images) / data.images;

  const paper = scaled(usual.images_per_batch);
  const paperGpus = Number(data.command[data.command.indexOf("--nproc-per-node") + 1]);
  const start = { gpus: data.gpus, each: data.each, parts: 1, share: 0.4 };
  let chosen = { ...start };
  let over = "iterations";
  const plan = () => scaled(chosen.gpus * chosen.each * chosen.parts);
  const now = (own) => clamp(Math.round(chosen.share * own.iterations), 1, own.iterations);
  const whole = (value) => value.toLocaleString("en-US");
  const count = (number, word) => `${whole(number)} ${word}${number === 1 ? "" : "s"}`;
  const short = (value) => String(Number(value.toPrecision(6)));

  /** At most six round numbers from 0 to `end`. */
  const ticks = (end) => {
    const power = 10 ** Math.floor(Math.log10(end / 5));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => end <= 5 * size);
    return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, i) => Number((i * step).toPrecision(6)));
  };
  // The axis of the rates reaches from the smallest batch to the largest, so that curves can be seen to move.
  const lowest = Math.floor(Math.log10(rate(scaled(1), Infinity)));
  const highest = Math.ceil(Math.log10(scaled(data.most ** 3).lr));
  const powers = Array.from({ length: highest - lowest + 1 }, (_, i) => lowest + i);
  const raised = (power) => `10${String(power).replace(/./g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)])}`;
  const log = (value) => Math.log10(value);

  /** Iterations at which a curve bends. */
  const bends = ({ iterations, steps, warmup }) => [
    ...Array.from({ length: 11 }, (_, i) => Math.max(1, Math.round((warmup * i) / 10))),
    ...steps.flatMap((step) => [step - 1, step]), iterations,
  ];
  const [run, warm] = [html("div", {}), html("div", {})];
  const marker = svg("line", { class: "cpm-now" });
  const handle = kit.grip({ r: 7, class: "cpm-grip" });
  let chart = null;
  /** Place of an iteration on the axis of the left chart. */
  const along = (own, iteration) => (over === "iterations" ? iteration / 1000 : passes(own, iteration));
  const where = () => `iteration ${whole(now(plan()))} of ${whole(plan().iterations)}`;
  const lines = (draw) => [[plan(), 1], [paper, 2]].map(([own, series]) =>
    svg("path", { class: `cpm-line cpm-series${series}`, d: draw(own) }));

  /** Axes and curves, which change with the hardware; the handle is the same one all the time. */
  function draw() {
    const own = plan();
    const end = Math.max(along(own, own.iterations), along(paper, paper.iterations));
    const label = over === "iterations" ? "iteration, thousands" : "times through COCO";
    chart = kit.chart("Learning rate over the whole training", {
      x: { from: 0, to: end, label, ticks: ticks(end) },
      y: { from: lowest, to: highest, label: "learning rate", ticks: powers, show: raised },
    });
    chart.layer.append(
      ...lines((it) => chart.path(bends(it).map((i) => [along(it, i), log(rate(it, i))]))), marker, handle);
    run.replaceChildren(chart.node);
    const first = 2.1 * usual.warmup_iterations;
    const most = 1000 * Math.max(own.lr, paper.lr);
    const zoom = kit.chart("Learning rate over the first iterations", {
      height: 200,
      x: { from: 0, to: first, label: "iteration", ticks: ticks(first) },
      y: { from: 0, to: 1.1 * most, label: "learning rate, thousandths", ticks: ticks(1.1 * most) },
    });
    zoom.layer.append(...lines((it) => zoom.path(
      [...bends(it).filter((i) => i <= first), first].map((i) => [i, 1000 * rate(it, i)]))));
    warm.replaceChildren(zoom.node);
    show();
  }

  const numbers = kit.teller();
  const line = html("pre", { class: "cpm-command", "aria-label": "command" });
  function show() {
    const own = plan();
    const { gpus, each, parts } = chosen;
    const here = now(own);
    const x = chart.X(along(own, here));
    set(marker, { x1: x, x2: x, y1: chart.Y(lowest), y2: chart.Y(highest) });
    handle.at(x, chart.Y(log(rate(own, here))));
    set(handle, { "aria-valuetext": where() });
    const [batch, before] = [own.images, usual.images_per_batch];
    numbers.tell(
      `${count(gpus, "GPU")} × ${count(each, "image")}${parts > 1 ? ` × ${parts} parts` : ""} = ` +
        `${count(batch, "image")} per iteration: ` +
        `learning rate ${usual.lr} × ${batch}/${before} = ${short(own.lr)}.`,
      `${whole(usual.iterations)} × ${before}/${batch} = ${whole(own.iterations)} iterations see as many images as the ` +
        `paper's: ${text(passes(own), 1)} times COCO's ${whole(data.images)}.`,
      `Warm-up from ${short(rate(own, 1))} over ${whole(own.warmup)} iterations, that is ` +
        `${whole(own.warmup * batch)} images; a tenth of the rate from iterations ${own.steps.map(whole).join(" and ")} on.`,
      `At iteration ${whole(here)}, ${text(passes(own, here), 1)} times through COCO: ` +
        `learning rate ${short(rate(own, here))}.`);
    line.textContent = command(gpus, each, parts).join(" ").replace(/ --(?!nproc)/g, " \\\n    --");
  }

  kit.movable(handle, {
    label: "iteration", step: 4, value: where,
    move: (dx) => {
      const own = plan();
      chosen.share = clamp(chosen.share + dx / (chart.X(along(own, own.iterations)) - chart.X(0)), 0, 1);
      show();
    },
  });
  const slider = (name, label) =>
    kit.slider(label, {
      min: 1, max: data.most, step: 1, value: chosen[name], show: (value) => text(value, 0),
      change: (value) => {
        chosen[name] = value;
        draw();
      },
    });
  const sliders = {
    gpus: slider("gpus", "GPUs"),
    each: slider("each", "images a GPU holds"),
    parts: slider("parts", "parts, one after the other"),
  };
  const again = kit.button("start again", () => {
    chosen = { ...start };
    Object.entries(sliders).forEach(([name, control]) => control.set(chosen[name]));
    draw();
  });
  const axis = kit.choice("drawn over", {
    options: [["iterations", "iterations"], ["passes", "times through COCO"]],
    value: over,
    change: (value) => {
      over = value;
      draw();
    },
  });
  const style = html("style", {}, [
    ".cpm-now{stroke:currentColor;stroke-width:1.5;stroke-dasharray:2 3}",
    ".cpm-command{margin:.5rem 0;padding:.5rem .7rem;border:1px solid;border-radius:.3rem;background:none;" +
      "color:inherit;font:.85rem/1.45 monospace;white-space:pre-wrap;overflow-wrap:anywhere}",
  ].map((rule) => `.cpm-explorer[data-name=schedule] ${rule}`).join(""));
  const key = kit.legend(
    ["series1", "your GPUs"],
    ["series2", `the paper's ${paperGpus} GPUs × ${usual.images_per_batch / paperGpus} images`]);
  kit.root.append(
    style, kit.controls(...Object.values(sliders), axis, again), columns(column(run, key), column(warm, numbers)), line);
  draw();
  return { scaled, rate, command, passes };
}
