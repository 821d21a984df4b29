// Greedy NMS one box at a time: hard, soft with linear decay, soft with Gaussian decay.
function explorer(kit, data) {
  const { html, svg, set, text, columns, column, drawing, picture, box } = kit;

  /** What the box taken does to another of its class, as a factor of that one's score. */
  const decay = (method, overlap, threshold, sigma) => {
    if (method === "gaussian") return Math.exp(-(overlap ** 2) / sigma);
    if (overlap <= threshold) return 1;
    return method === "hard" ? 0 : 1 - overlap;
  };
  /** All steps: the box taken, and what happens to the others: {other, iou, before, after}. */
  function run(boxes, scores, labels, method, threshold, sigma, minScore) {
    const left = [...scores];
    const waiting = new Set(boxes.keys());
    const steps = [];
    while (waiting.size) {
      const best = [...waiting].reduce((a, b) => (left[b] > left[a] ? b : a));
      if (method !== "hard" && left[best] < minScore) break;
      waiting.delete(best);
      const changes = [];
      for (const other of waiting) {
        const overlap = kit.iou(boxes[best], boxes[other]);
        if (labels[other] !== labels[best] || overlap === 0) continue;
        const before = left[other];
        left[other] *= decay(method, overlap, threshold, sigma);
        const removed = method === "hard" && overlap > threshold;
        if (removed) waiting.delete(other);
        changes.push({ other, iou: overlap, before, after: left[other], removed });
      }
      steps.push({ taken: best, score: left[best], changes: changes.sort((a, b) => b.iou - a.iou) });
    }
    return steps;
  }

  const { boxes, scores, labels } = data;
  let [method, threshold, sigma, step] = [data.method, data.threshold, data.sigma, 0];
  let steps = [];

  // The picture.
  const [width, height] = data.size;
  const unit = Math.max(width, height);
  const scene = drawing(width, height, "Image with the boxes: kept, removed and waiting");
  const frames = boxes.map((coordinates) => box("proposal", coordinates));
  const marks = boxes.map(([x1, y1], k) => {
    const mark = svg("text", { x: x1 + unit / 60, y: Math.max(y1, 0) + unit / 17, class: "cpm-number" }, `${k + 1}`);
    mark.style.fontSize = `${unit / 18}px`;
    return mark;
  });
  scene.append(picture(data.image, 0, 0, width, height), ...data.objects.map((object) => box("truth", object)),
    ...frames, ...marks);

  // The list, best score first.
  const rows = boxes.map((_, k) => {
    const [value, words] = [html("span", {}), html("span", { class: "cpm-fate" })];
    const bar = html("span", { class: "cpm-bar" });
    const full = html("span", { class: "cpm-bar cpm-before" });
    full.style.width = `${100 * scores[k]}%`;
    const node = html("li", {}, html("span", {}, `${k + 1}`), html("span", {}, data.classes[labels[k] - 1]),
      html("span", { class: "cpm-track", "aria-hidden": "true" }, full, bar), value, words);
    return { node, value, words, bar };
  });
  const list = html("ol", { class: "cpm-queue" }, ...rows.map(({ node }) => node));
  const region = { class: "cpm-scroll", tabindex: 0, role: "region", "aria-label": "Boxes, best score first" };
  const frame = html("div", region, list);
  const numbers = kit.teller();
  const name = (k) => `box ${k + 1}`;

  /** Words for what one step does to one other box. */
  function sentence({ other, iou, before, after, removed }) {
    const [overlap, limit] = [text(iou), text(threshold)];
    if (removed) return `IoU with ${name(other)}: ${overlap} > ${limit}, removed`;
    if (method !== "gaussian" && iou <= threshold) return `IoU with ${name(other)}: ${overlap} ≤ ${limit}, stays`;
    const factor = method === "linear" ? `(1 − ${overlap})` : `exp(−${overlap}² / ${text(sigma)})`;
    return `${name(other)}: ${text(before, 3)} × ${factor} = ${text(after, 3)}`;
  }

  function show() {
    const done = steps.slice(0, step);
    const kept = new Map(done.map(({ taken, score }, order) => [taken, { order, score }]));
    const [gone, now] = [new Map(), [...scores]];
    for (const { taken, changes } of done) {
      for (const change of changes) {
        now[change.other] = change.after;
        if (change.removed || change.after < change.before) gone.set(change.other, { ...change, by: taken });
      }
    }
    const last = done.at(-1);
    const lowered = last ? last.changes.filter((change) => change.after < change.before) : [];
    const touched = new Set(last ? [last.taken, ...lowered.map(({ other }) => other)] : []);
    boxes.forEach((_, k) => {
      const cause = gone.get(k);
      const removed = Boolean(cause && cause.removed);
      const state = kept.has(k) ? "prediction" : removed ? "region" : "proposal";
      set(frames[k], { class: `cpm-box cpm-${state}` });
      frames[k].classList.toggle("cpm-quiet", !touched.has(k) && !kept.has(k));
      frames[k].classList.toggle("cpm-current", Boolean(last) && last.taken === k);
      marks[k].toggleAttribute("hidden", !kept.has(k));
      const { node, value, words, bar } = rows[k];
      bar.style.width = `${100 * (removed ? 0 : now[k])}%`;
      value.textContent = text(removed ? scores[k] : now[k], 2);
      const decayed = cause && !removed ? `, lowered by ${cause.by + 1}, IoU ${text(cause.iou)}` : "";
      words.textContent = kept.has(k) ? `kept as number ${kept.get(k).order + 1}${decayed}`
        : removed ? `removed by ${cause.by + 1}, IoU ${text(cause.iou)}`
        : `${ended() ? "dropped" : "waits"}${decayed}`;
      node.className = [touched.has(k) && "cpm-touched", removed && "cpm-gone"].filter(Boolean).join(" ");
      if (last && last.taken === k) {
        frame.scrollTop = Math.max(0, node.offsetTop - frame.offsetTop - frame.clientHeight / 2);
      }
    });
    // What is touched lies above the rest.
    [...touched].reverse().forEach((k) => scene.append(frames[k]));
    scene.append(...marks);
    position.set(step);
    [back.disabled, forward.disabled] = [step === 0, step === steps.length];
    tell(last, kept);
  }

  /** Whether soft NMS is over: it ends where the best score left is below the least one. */
  const ended = () => method !== "hard" && step === steps.length;

  function tell(last, kept) {
    const total = steps.length;
    const left = boxes.length - kept.size - (method === "hard"
      ? steps.slice(0, step).flatMap(({ changes }) => changes.filter((c) => c.removed)).length : 0);
    const others = ended() && left ? `${left} dropped, their scores below ${data.min_score}` : `${left} waiting`;
    const lines = [`Step ${step} of ${total}: ${kept.size} of ${boxes.length} boxes kept, ${others}.`];
    if (!last) {
      lines.push(boxes.length ? "The box with the best score is taken first." : "There is no box.");
    } else {
      lines.push(`The best score left is ${text(last.score, 3)}, of ${name(last.taken)} ` +
        `(${data.classes[labels[last.taken] - 1]}): kept.`);
      lines.push(...last.changes.slice(0, 5).map((change) => `${sentence(change)}.`));
      if (last.changes.length > 5) lines.push(`${last.changes.length - 5} more of its class overlap less.`);
      if (!last.changes.length) lines.push("No other box of its class overlaps it.");
    }
    numbers.tell(...lines);
  }

  function again(change) {
    change();
    steps = run(boxes, scores, labels, method, threshold, sigma, data.min_score);
    step = Math.min(step, steps.length);
    set(position.querySelector("input"), { max: steps.length });
    cut.style.display = method === "gaussian" ? "none" : "";
    spread.style.display = method === "gaussian" ? "" : "none";
    show();
  }
  const go = (to) => {
    step = kit.clamp(to, 0, steps.length);
    show();
  };

  const position = kit.slider("step", {
    min: 0, max: boxes.length, step: 1, value: 0, show: (value) => String(value), change: go,
  });
  const back = kit.button("◀ back", () => go(step - 1));
  const forward = kit.button("forward ▶", () => go(step + 1));
  const cut = kit.slider("IoU threshold", {
    min: 0.05, max: 0.95, step: 0.05, value: threshold, change: (value) => again(() => (threshold = value)),
  });
  const spread = kit.slider("sigma", {
    min: 0.1, max: 1, step: 0.1, value: sigma, change: (value) => again(() => (sigma = value)),
  });
  const kind = kit.choice("NMS", {
    options: [["hard", "hard"], ["linear", "soft, linear"], ["gaussian", "soft, Gaussian"]],
    value: method,
    change: (value) => again(() => (method = value)),
  });
  // Its own classes only: other explorers may be on the page.
  const rules = (...lines) => lines.map((line) => `.cpm-explorer[data-name=nms] ${line}`).join("\n");
  const style = html("style", {}, rules(
    "text.cpm-number{fill:#fff;stroke:#000;stroke-width:.25em;paint-order:stroke;font-weight:700}",
    "text.cpm-number[hidden]{display:none}",
    ".cpm-box.cpm-current{stroke-width:4.5}",
    ".cpm-scroll{max-height:21rem;overflow-y:auto;border-radius:.3rem;border:1px solid;" +
      "border-color:color-mix(in srgb,currentColor 20%,transparent)}",
    ".cpm-scroll:focus-visible{outline:2px solid currentColor}",
    ".cpm-queue{list-style:none;margin:0;padding:.2rem}",
    ".cpm-queue li{display:grid;grid-template-columns:1.6em minmax(4.2em,auto) 4rem 2.6em 1fr;gap:0 .5rem;" +
      "align-items:center;margin:0;padding:.05rem .3rem;border-radius:.2rem;font-variant-numeric:tabular-nums}",
    ".cpm-queue .cpm-touched{background:color-mix(in srgb,var(--cpm-prediction) 22%,transparent)}",
    ".cpm-queue .cpm-gone>span:not(.cpm-fate){text-decoration:line-through}",
    ".cpm-fate{font-size:.85rem}",
    ".cpm-track{position:relative;height:.5rem;border-radius:.2rem;overflow:hidden;" +
      "background:color-mix(in srgb,currentColor 12%,transparent)}",
    ".cpm-bar{position:absolute;inset:0 auto 0 0;background:var(--cpm-prediction)}",
    ".cpm-before{background:color-mix(in srgb,currentColor 35%,transparent)}"),
    `@media (max-width:34rem){${rules(
      ".cpm-queue li{grid-template-columns:1.6em minmax(4.2em,auto) 1fr 2.6em}", ".cpm-fate{grid-column:2/-1}")}}`);
  kit.root.append(style, kit.controls(back, forward, position), kit.controls(kind, cut, spread),
    columns(
      column(scene, kit.legend(...(data.objects.length ? [["truth", "object"]] : []), ["proposal", "waits"],
        ["prediction", "kept"], ["region", "removed"]), numbers),
      column(frame)));
  again(() => {});
  return {
    run,
    keep: (...given) => run(...given).map(({ taken, score }) => [taken, score]),
  };
}
