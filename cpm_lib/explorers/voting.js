// Nine peaks to drag, and the box whose sides are their weighted means (Sec. 3.2, S_j of Eq. 1).
function explorer(kit, data) {
  const { html, svg, set, text, clamp, columns, column, drawing, picture, place, box } = kit;
  const { grid, map_size: mapSize, window: windowSize, starts, roi, truth, ratio } = data;
  const POINTS = starts.map((_, index) => index);
  const [FIRST, LAST] = [0, grid - 1];
  const SIDES = [
    { name: "left", axis: 0, line: FIRST },
    { name: "top", axis: 1, line: FIRST },
    { name: "right", axis: 0, line: LAST },
    { name: "bottom", axis: 1, line: LAST },
  ];
  /** Column and row of a point on the grid: points are numbered down the columns. */
  const spot = (index) => [Math.floor(index / grid), index % grid];
  const voters = ({ axis, line }) => POINTS.filter((index) => spot(index)[axis] === line);

  /** The region: same centre, sides `m` times as long. */
  const extend = ([x1, y1, x2, y2], m) => {
    const [dx, dy] = [((x2 - x1) * (m - 1)) / 2, ((y2 - y1) * (m - 1)) / 2];
    return [x1 - dx, y1 - dy, x2 + dx, y2 + dy];
  };
  /** Centre of a cell [x, y] of a point's window, in pixels. */
  const position = (index, cell, from, m) => {
    const region = extend(from, m);
    return cell.map((value, axis) =>
      region[axis] + ((value + starts[index][axis] + 0.5) / mapSize) * (region[axis + 2] - region[axis]));
  };
  /** One side: the mean of its points' coordinates, weighted with their confidence. */
  const mean = (side, peaks, from, m, weight = (peak) => peak[2]) => {
    const own = voters(side);
    const total = own.reduce((sum, index) => sum + weight(peaks[index]), 0);
    const value = (index) => position(index, peaks[index].slice(0, 2), from, m)[side.axis];
    return own.reduce((sum, index) => sum + weight(peaks[index]) * value(index), 0) / total;
  };
  /** The box of nine peaks [column, row, confidence]. */
  const decode = (peaks, from, m) => SIDES.map((side) => mean(side, peaks, from, m));

  // Places are kept finer than cells, so that slow movements of the mouse add up.
  const begin = () =>
    data.peaks.map(([x, y, confidence]) => ({ at: [x + 0.5, y + 0.5], confidence: Math.max(confidence, 1e-4) }));
  let points = begin();
  let [selected, side] = [0, SIDES[0]];
  const peaks = () => points.map(({ at, confidence }) => [...at.map(Math.floor), confidence]);

  // The picture.
  const [left, top, right, bottom] = data.view;
  const width = right - left;
  const scene = drawing(width, bottom - top, "Image with the object, the RoI, its region and the box voted for", {
    viewBox: `${left} ${top} ${width} ${bottom - top}`, class: "cpm-scene",
  });
  const region = extend(roi, ratio);
  const voted = box("prediction", roi);
  const stems = voters(SIDES[0]).map(() => svg("line", { class: "cpm-stem" }));
  const half = width / 45;
  const moved = (index, dx, dy) => {
    selected = index;
    points[index].at = points[index].at.map((value, axis) => clamp(value + [dx, dy][axis], 0, windowSize - 1e-6));
    show();
  };
  const where = (index) => `column ${peaks()[index][0]}, row ${peaks()[index][1]} of its window`;
  const title = (index) => `point ${index} (column ${spot(index)[0]}, row ${spot(index)[1]} of the grid)`;
  const perCell = [0, 1].map((axis) => (region[axis + 2] - region[axis]) / mapSize);
  const dots = POINTS.map((index) => {
    const dot = kit.grip({ class: "cpm-dot" });
    kit.movable(dot, {
      label: `${title(index)} in the picture`,
      value: () => where(index),
      move: (dx, dy) => moved(index, dx / perCell[0], dy / perCell[1]),
    });
    dot.addEventListener("focus", () => select(index));
    // With keys the same point is reached in its heatmap.
    return set(dot, { tabindex: -1, "aria-hidden": "true" });
  });
  scene.append(
    svg("rect", { x: left, y: top, width, height: bottom - top, class: "cpm-outside" }),
    picture(data.image, data.at[0], data.at[1], data.at[2] - data.at[0], data.at[3] - data.at[1]),
    box("region", region), box("proposal", roi), box("truth", truth), voted, ...stems, ...dots);

  // The nine heatmaps, each in the place of its point.
  const [unit, gap] = [4, 14];
  const size = windowSize * unit;
  const whole = grid * (size + gap) - gap;
  const maps = drawing(whole, whole, "Heatmaps of the nine points with their peaks", { class: "cpm-maps" });
  const frames = POINTS.map((index) =>
    svg("rect", { width: size, height: size, class: `cpm-frame${data.targets[index].length ? "" : " cpm-empty"}` }));
  const handles = POINTS.map((index) => {
    const handle = kit.grip({ r: 9, class: "cpm-peak" });
    kit.movable(handle, {
      label: title(index), step: unit, value: () => where(index),
      move: (dx, dy) => moved(index, dx / unit, dy / unit),
    });
    handle.addEventListener("focus", () => select(index));
    return handle;
  });
  POINTS.forEach((index) => {
    const [x, y] = spot(index).map((line) => line * (size + gap));
    maps.append(svg("g", { transform: `translate(${x} ${y})` },
      picture(data.heatmaps[index], 0, 0, size, size),
      data.targets[index].map(([a, b]) =>
        svg("rect", { x: a * unit, y: b * unit, width: unit, height: unit, class: "cpm-target" })),
      frames[index], svg("text", { x: 5, y: 15 }, String(index)), handles[index]));
  });

  const numbers = kit.teller();
  const slider = kit.slider("confidence of the selected point", {
    min: 0.01, max: 1, step: 0.01, value: points[0].confidence,
    change: (value) => {
      points[selected].confidence = value;
      show();
    },
  });
  const sides = kit.choice("side", {
    options: SIDES.map(({ name }) => [name, name]),
    value: side.name,
    change: (name) => {
      side = SIDES.find((other) => other.name === name);
      show();
    },
  });
  /** Select a point; the arithmetic shows a side that it votes for, if there is one. */
  function select(index) {
    selected = index;
    const own = SIDES.filter((other) => voters(other).includes(index));
    if (own.length && !own.includes(side)) {
      side = own[0];
      sides.querySelector(`input[value="${side.name}"]`).checked = true;
    }
    show();
  }

  function show() {
    const now = peaks();
    const result = decode(now, roi, ratio);
    const own = voters(side);
    const other = 1 - side.axis;
    const at = POINTS.map((index) => position(index, now[index].slice(0, 2), roi, ratio));
    place(voted, result);
    slider.set(points[selected].confidence);
    POINTS.forEach((index) => {
      const strength = 0.55 + 0.75 * points[index].confidence;
      dots[index].spot.classList.toggle("cpm-voter", own.includes(index));
      set(dots[index].at(...at[index]).spot, { r: half * strength });
      frames[index].classList.toggle("cpm-voter", own.includes(index));
      handles[index].spot.classList.toggle("cpm-voter", own.includes(index));
      handles[index].spot.classList.toggle("cpm-selected", index === selected);
      handles[index].at(...now[index].slice(0, 2).map((cell) => (cell + 0.5) * unit));
      set(handles[index], { "aria-valuetext": where(index) });
    });
    own.forEach((index, number) => {
      const end = result[SIDES.indexOf(side)];
      const [from, to] = [at[index], [...at[index]]];
      to[side.axis] = end;
      set(stems[number], { x1: from[0], y1: from[1], x2: to[0], y2: to[1] });
      stems[number].style.strokeWidth = `${1 + 4 * points[index].confidence}px`;
    });
    const weights = own.map((index) => text(points[index].confidence));
    const terms = own.map((index, number) => `${weights[number]} × ${text(at[index][side.axis], 1)}`);
    const votes = SIDES.filter((one) => voters(one).includes(selected)).map(({ name }) => name);
    const equal = mean(side, now, roi, ratio, () => 1);
    const list = (values) => values.map((value) => text(value, 1)).join(", ");
    numbers.tell(
      `${side.name} = (${terms.join(" + ")}) / (${weights.join(" + ")}) = ${text(result[SIDES.indexOf(side)], 1)}; ` +
        `with equal weights it would be ${text(equal, 1)}. The object's is ${text(truth[SIDES.indexOf(side)], 1)}.`,
      `Point ${selected} votes for ${votes.length ? votes.join(" and ") : "no side"}. ` +
        `Its peak is in ${where(selected)}, at ${list(at[selected])}` +
        (data.targets[selected].length ? "." : "; the object's point is outside its window and has no target cell."),
      `Box: ${list(result)}. IoU with the object: ${text(kit.iou(result, truth))}; ` +
        `of the RoI: ${text(kit.iou(roi, truth))}.`);
  }

  const style = html("style", {}, [
    ".cpm-dot{fill:#fff;stroke:#222;stroke-width:1;vector-effect:non-scaling-stroke}",
    ".cpm-dot.cpm-voter{fill:var(--cpm-prediction)}",
    ".cpm-stem{stroke:var(--cpm-prediction);opacity:.75;vector-effect:non-scaling-stroke;pointer-events:none}",
    ".cpm-scene{overflow:hidden}",
    ".cpm-outside{fill:currentColor;opacity:.07}",
    ".cpm-empty{stroke-dasharray:8 6}",
    ".cpm-frame{fill:none;stroke:currentColor;stroke-opacity:.35}",
    ".cpm-frame.cpm-voter{stroke:var(--cpm-prediction);stroke-width:3;stroke-opacity:1}",
    ".cpm-peak{fill:transparent;stroke:currentColor;stroke-width:2}",
    ".cpm-peak.cpm-voter{stroke:var(--cpm-prediction);stroke-width:3}",
    ".cpm-peak.cpm-selected{stroke-dasharray:4 2;fill:var(--cpm-prediction);fill-opacity:.3}",
    ".cpm-target{fill:none;stroke:var(--cpm-truth);stroke-width:1}",
    ".cpm-maps .cpm-picture{image-rendering:pixelated}",
  ].map((rule) => `.cpm-explorer[data-name=voting] ${rule}`).join(""));
  const controls = kit.controls(sides, slider, kit.button("start again", () => {
    points = begin();
    show();
  }));
  const key = kit.legend(
    ["truth", "object and its target cells"], ["proposal", "RoI"], ["region", "region of the heatmaps"],
    ["prediction", "voted box and the points of the chosen side"]);
  kit.root.append(style, columns(column(scene, key), column(maps)), controls, numbers);
  show();
  return { position, decode, iou: kit.iou };
}
