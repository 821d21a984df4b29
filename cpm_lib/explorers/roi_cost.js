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
  const [width, height, left] = [600, 130, 150];
  const longest = Math.max(...data.detectors.map((detector) => seconds(detector, data.most)));
  const scene = drawing(width, height, "Seconds per image of both detectors");
  const scale = (width - left - 60) / longest;
  const bars = data.detectors.map((detector, line) => {
    const y = 12 + line * 60;
    const [fixed, each] = [1, 3].map((series) =>
      svg("rect", { y, height: 36, style: `fill:var(--cpm-series${series})` }));
    set(fixed, { x: left, width: detector.fixed * scale });
    const label = svg("text", { y: y + 23 });
    scene.append(svg("text", { x: left - 8, y: y + 23, "text-anchor": "end" }, detector.name), fixed, each, label);
    return { each, label };
  });
  const numbers = kit.teller();

  function show() {
    data.detectors.forEach((detector, line) => {
      const { each, label } = bars[line];
      const [from, long] = [left + detector.fixed * scale, detector.each * rois[line] * scale];
      set(each, { x: from, width: long });
      set(label, { x: from + long + 6 });
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
  const swatch = (series, words) =>
    kit.html("li", {},
      svg("svg", { viewBox: "0 0 20 12", "aria-hidden": "true" },
        svg("rect", { x: 2, y: 2, width: 16, height: 8, style: `fill:var(--cpm-series${series})` })),
      words);
  const key = kit.html("ul", { class: "cpm-legend" },
    swatch(1, "work on the image, whatever the number of RoIs"), swatch(3, "work on the RoIs that are refined"));
  kit.root.append(scene, key, kit.controls(...sliders, again), numbers);
  show();
  return { seconds: (line, count) => seconds(data.detectors[line], count), ratio, needed };
}
