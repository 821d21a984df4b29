// A RoI to drag, the region its heatmaps cover, and the targets of its nine grid points (Fig. 3, Eq. 2).
function explorer(kit, data) {
  const { html, svg, set, text, clamp, columns, column, drawing, picture, place, box } = kit;
  const { grid, map_size: mapSize, window: windowSize, radius } = data;
  const POINTS = Array.from({ length: grid * grid }, (_, index) => index);

  /** The region: same centre, sides `ratio` times as long. */
  const extend = ([x1, y1, x2, y2], ratio) => {
    const [dx, dy] = [((x2 - x1) * (ratio - 1)) / 2, ((y2 - y1) * (ratio - 1)) / 2];
    return [x1 - dx, y1 - dy, x2 + dx, y2 + dy];
  };
  /** Place of grid point `index` (column by column) on a box, in pixels. */
  const point = ([x1, y1, x2, y2], index) => {
    const share = (step) => step / (grid - 1);
    const [across, down] = [share(Math.floor(index / grid)), share(index % grid)];
    return [x1 + across * (x2 - x1), y1 + down * (y2 - y1)];
  };
  /** First cell [x, y] of the window of a point in the whole map. */
  const windowStart = (index) => {
    const step = Math.floor((mapSize - windowSize) / (grid - 1));
    return [Math.floor(index / grid) * step, (index % grid) * step];
  };
  /** Cell of a point of the ground truth within its window; outside 0..windowSize-1 it has no place there. */
  const cell = (roi, truth, ratio, index) => {
    const region = extend(roi, ratio);
    return [0, 1].map((axis) => {
      const side = region[2 + axis] - region[axis];
      const whole = Math.floor(((point(truth, index)[axis] - region[axis]) / side) * mapSize);
      return whole - windowStart(index)[axis];
    });
  };
  /** Cells [x, y] of the window that are 1 in the target heatmap. */
  const target = (roi, truth, ratio, index) => {
    const region = extend(roi, ratio);
    if (region[2] - region[0] <= grid || region[3] - region[1] <= grid) return [];
    const [x, y] = cell(roi, truth, ratio, index);
    const cells = [];
    for (let dy = -radius; dy <= radius; dy++) {
      for (let dx = Math.abs(dy) - radius; dx <= radius - Math.abs(dy); dx++) {
        const [column, row] = [x + dx, y + dy];
        if (column >= 0 && row >= 0 && column < windowSize && row < windowSize) cells.push([column, row]);
      }
    }
    return cells;
  };
  const inside = (roi, truth, ratio, index) =>
    cell(roi, truth, ratio, index).every((value) => value >= 0 && value < windowSize);
  /** Whether the region reaches the point, be it in its own window or in those of others only. */
  const reached = (roi, truth, ratio, index) =>
    cell(roi, truth, ratio, index).every((value, axis) => {
      const whole = value + windowStart(index)[axis];
      return whole >= 0 && whole < mapSize;
    });
  const targets = (roi, truth, ratio) => POINTS.map((index) => target(roi, truth, ratio, index));

  let [roi, ratio] = [[...data.proposal], data.ratio];
  const { truth } = data;

  // The picture, with a margin in which a region may leave the image.
  const [width, height] = data.size;
  const margin = Math.max(width, height) * 0.35;
  const scene = drawing(width, height, "Image with the object, the RoI and the region of its heatmaps", {
    viewBox: `${-margin} ${-margin} ${width + 2 * margin} ${height + 2 * margin}`,
  });
  const region = box("region", extend(roi, ratio));
  const roiBox = box("proposal", roi);
  const dots = POINTS.map(() => svg("g", { class: "cpm-point" }));
  /** A point of the object: in its window, in the region beside its window, or out of reach. */
  const mark = (state, x, y, arm) =>
    state === "lost"
      ? svg("path", {
        d: `M${x - arm} ${y - arm}l${2 * arm} ${2 * arm}m0 ${-2 * arm}l${-2 * arm} ${2 * arm}`, class: "cpm-lost",
      })
      : svg("circle", { cx: x, cy: y, r: arm, class: `cpm-${state}` });
  const body = svg("rect", { fill: "transparent" });
  const size = Math.max(width, height) / 34;
  const corners = [0, 1].map(() => kit.grip({ r: size, class: "cpm-grip" }));
  const where = () => `from ${text(roi[0], 0)}, ${text(roi[1], 0)} to ${text(roi[2], 0)}, ${text(roi[3], 0)}`;
  const least = 6;
  kit.movable(body, {
    label: "RoI: move it",
    value: where,
    move: (dx, dy) => {
      const [x, y] = [clamp(dx, -roi[0], width - roi[2]), clamp(dy, -roi[1], height - roi[3])];
      roi = [roi[0] + x, roi[1] + y, roi[2] + x, roi[3] + y];
      show();
    },
  });
  ["top left", "bottom right"].forEach((name, end) =>
    kit.movable(corners[end], {
      label: `RoI: ${name} corner`,
      value: where,
      move: (dx, dy) => {
        const [x, y] = [roi[2 * end] + dx, roi[2 * end + 1] + dy];
        roi = end
          ? [roi[0], roi[1], clamp(x, roi[0] + least, width), clamp(y, roi[1] + least, height)]
          : [clamp(x, 0, roi[2] - least), clamp(y, 0, roi[3] - least), roi[2], roi[3]];
        show();
      },
    }));
  scene.append(picture(data.image, 0, 0, width, height), region, box("truth", truth), roiBox, ...dots, body, ...corners);

  // Nine windows of the one map, in the order of the points on the object.
  const gap = 6;
  const side = windowSize + gap;
  const maps = drawing(grid * side - gap, grid * side - gap, "Target heatmaps of the nine grid points", {
    // Half of a frame's line lies outside it.
    viewBox: `-1 -1 ${grid * side - gap + 2} ${grid * side - gap + 2}`,
  });
  const layers = POINTS.map((index) => {
    const layer = svg("g", { transform: `translate(${Math.floor(index / grid) * side} ${(index % grid) * side})` });
    maps.append(layer);
    return layer;
  });

  const numbers = kit.teller();
  function show() {
    const area = extend(roi, ratio);
    place(roiBox, roi);
    place(body, roi);
    place(region, area);
    corners.forEach((corner, end) => corner.at(roi[2 * end], roi[2 * end + 1]));
    const count = { found: 0, beside: 0, lost: 0 };
    POINTS.forEach((index) => {
      const [x, y] = point(truth, index);
      const found = inside(roi, truth, ratio, index);
      const state = found ? "found" : reached(roi, truth, ratio, index) ? "beside" : "lost";
      count[state] += 1;
      dots[index].replaceChildren(mark(state, x, y, size * 0.6));
      layers[index].replaceChildren(
        svg("rect", { width: windowSize, height: windowSize, class: found ? "cpm-window" : "cpm-window cpm-empty" }),
        ...target(roi, truth, ratio, index).map(([column, row]) => svg("rect", { x: column, y: row, width: 1, height: 1, class: "cpm-cell" })));
    });
    const wide = roi[2] - roi[0];
    numbers.tell(
      `${count.found + count.beside} of ${grid * grid} grid points are inside the region, ` +
        `${count.found} inside their window.`,
      `The RoI is ${text(wide, 1)} pixels wide, the region ${text(ratio)} × ${text(wide, 1)} = ${text(ratio * wide, 1)}; ` +
        `one of its ${mapSize} cells is ${text((ratio * wide) / mapSize)} pixels wide.`,
      `IoU of RoI and object: ${text(kit.iou(roi, truth))}.`);
  }

  const style = html("style", {},
    ".cpm-found{fill:var(--cpm-truth);stroke:#fff;stroke-width:1;vector-effect:non-scaling-stroke}" +
    ".cpm-beside{fill:#fff;stroke:var(--cpm-truth);stroke-width:2.5;vector-effect:non-scaling-stroke}" +
    ".cpm-lost{fill:none;stroke:var(--cpm-proposal);stroke-width:3;vector-effect:non-scaling-stroke}" +
    ".cpm-window{fill:none;stroke:currentColor;stroke-width:1;vector-effect:non-scaling-stroke}" +
    ".cpm-empty{stroke:var(--cpm-proposal);stroke-width:2;stroke-dasharray:4 3}.cpm-cell{fill:var(--cpm-truth)}");
  const controls = kit.controls(
    kit.choice("mapping ratio", {
      options: data.ratios.map((value) => [value, String(value)]),
      value: ratio,
      change: (value) => {
        ratio = value;
        show();
      },
    }),
    kit.button("start again", () => {
      roi = [...data.proposal];
      show();
    }));
  const key = kit.legend(
    ["truth", "object"], ["proposal", "RoI"], ["region", "region of the heatmaps"],
    [mark("found", 10, 6, 4), "point inside its window"],
    [mark("beside", 10, 6, 4), "point inside the region, outside its window"],
    [mark("lost", 10, 6, 4), "point outside the region"]);
  kit.root.append(style, columns(column(scene, key), column(maps, numbers)), controls);
  show();
  return { extend, cell, target, targets, inside, reached, iou: kit.iou };
}
