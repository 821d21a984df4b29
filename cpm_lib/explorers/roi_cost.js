// Seconds per image as a fixed part and a part for every RoI, for two detectors (Table 8).
function explorer(kit, data) {
  const { svg, set, text, drawing } = kit;

  /** Seconds per image at this many RoIs. */
  const seconds = (detector, rois) => detector.fixed + detector.each * rois;
  /** How many times as long the second takes. */
  const ratio = (rois) => seconds(data.detectors[1], rois[1]) / seconds(data.detectors[0], rois[0]);
  /** RoIs at which the second takes `wanted` times as long as the first with `first` RoIs. */
  const needed = (wanted, first) => {
    const [one, other] = data.detectors;
    return (wanted * seconds(one, first) - other.fixed) / other.each;
  };

  const rois = data.detectors.map((detector) => detector.rois);
  const start = [...rois];
  // Names lie above the bars, so that the drawing is narrow enough for a telephone.
  const [width, height, left, right, bottom] = [360, 148, 8, 56, 118];
  const scene = drawing(width, height, "Seconds per image of both detectors", { class: "cpm-scene" });
  const axis = svg("g", { "aria-hidden": "true" });
  scene.append(axis);
  const bars = data.detectors.map((detector, line) => {
    const y = 20 + line * 54;
    const [fixed, each] = [1, 3].map((series) =>
      svg("rect", { y, height: 28, style: `fill:var(--cpm-series${series})` }));
    const label = svg("text", { y: y + 19 });
    scene.append(svg("text", { x: left, y: y - 6 }, detector.name), fixed, each, label);
    return { fixed, each, label };
  });
  const numbers = kit.teller();

  /** A few round seconds, the last of them just beyond the longer bar: the axis changes in steps, not all the time. */
  const ticks = () => {
    const longest = Math.max(...data.detectors.map((detector, line) => seconds(detector, rois[line])), 1e-3);
    const power = 10 ** Math.floor(Math.log10(longest / 5));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => longest <= 5 * size);
    return Array.from({ length: Math.ceil(longest / step) + 1 }, (_, number) => Number((number * step).toPrecision(6)));
  };

  function show() {
    const marks = ticks();
    const scale = (width - left - right) / marks[marks.length - 1];
    axis.replaceChildren(...marks.flatMap((mark) => {
      const x = left + mark * scale;
      return [
        svg("line", { x1: x, x2: x, y1: 0, y2: bottom - 4, class: "cpm-grid" }),
        svg("text", { x, y: bottom + 9, "text-anchor": "middle", class: "cpm-tick" }, String(mark)),
      ];
    }), svg("text", { x: width / 2, y: height - 4, "text-anchor": "middle" }, "seconds per image"));
    data.detectors.forEach((detector, line) => {
      const { fixed, each, label } = bars[line];
      const [short, long] = [detector.fixed * scale, detector.each * rois[line] * scale];
      set(fixed, { x: left, width: short });
      set(each, { x: left + short, width: long });
      set(label, { x: left + short + long + 6 });
      label.textContent = `${text(seconds(detector, rois[line]), 1)} s`;
    });
    const [one, other] = data.detectors;
    numbers.tell(
      ...data.detectors.map((detector, line) =>
        `${detector.name}: ${text(detector.fixed, 1)} s + ${rois[line]} × ${text(1000 * detector.each, 1)} ms = ` +
        `${text(seconds(detector, rois[line]), 1)} s.`),
      `${other.name} takes ${text(ratio(rois))} times as long as ${one.name}; the paper prints ` +
        `${text(data.printed_ratio)}, which needs ${text(needed(data.printed_ratio, rois[0]), 0)} RoIs of ${other.name}.`);
  }

  const sliders = data.detectors.map((detector, line) =>
    kit.slider(`RoIs of ${detector.name}`, {
      min: 0, max: data.most, step: 1, value: rois[line], show: (value) => text(value, 0),
      change: (value) => {
        rois[line] = value;
        show();
      },
    }));
  const again = kit.button("start again", () => {
    start.forEach((value, line) => {
      rois[line] = value;
      sliders[line].set(value);
    });
    show();
  });
  const swatch = (series) =>
    svg("rect", { x: 2, y: 2, width: 16, height: 8, style: `fill:var(--cpm-series${series})` });
  const key = kit.legend(
    [swatch(1), "work on the image, whatever the number of RoIs"], [swatch(3), "work on the RoIs that are refined"]);
  const style = kit.html("style", {}, ".cpm-explorer[data-name=roi_cost] .cpm-scene{max-width:32rem}");
  kit.root.append(style, scene, key, kit.controls(...sliders, again), numbers);
  show();
  return { seconds: (line, count) => seconds(data.detectors[line], count), ratio, needed };
}
