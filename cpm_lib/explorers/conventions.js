// A border beside that of a region, and the cell it gets under both roundings and both rules of pixels (Eq. 2).
function explorer(kit, data) {
  const { html, svg, set, text, clamp, columns, column, drawing } = kit;
  const { map_size: mapSize, radius, sides } = data;

  /** A continuous box along one axis as it is stored: with `last` it ends at its last pixel. */
  const stored = ([from, to], last) => (last ? [from, Math.max(to - 1, from)] : [from, to]);
  /** The region: same centre as the stored RoI, `ratio` times as long. */
  const region = (roi, ratio, last) => {
    const [from, to] = stored(roi, last);
    const margin = (ratio - 1) * ((to - from) / 2);
    return [from - margin, to + margin];
  };
  /** Where a left border lies, in cells from that of the region. */
  const position = (border, roi, ratio, last) => {
    const [from, to] = region(roi, ratio, last);
    return ((border - from) / (to - from)) * mapSize;
  };
  /** The cell of a left border. Adding 0 makes -0 positive. */
  const cell = (border, roi, ratio, last, rounding) =>
    Math[rounding](position(border, roi, ratio, last)) + 0;
  /** Centre of a cell in pixels, as decoding reads it; a left border is the same under both rules. */
  const centre = (number, roi, ratio, last) => {
    const [from, to] = region(roi, ratio, last);
    return from + ((number + 0.5) / mapSize) * (to - from);
  };
  /** The cross around a cell: [column, row from the point's]; in the map are only columns 0 to mapSize - 1. */
  const cross = (number) => {
    const cells = [];
    for (let dy = -radius; dy <= radius; dy++) {
      for (let dx = Math.abs(dy) - radius; dx <= radius - Math.abs(dy); dx++) cells.push([number + dx, dy]);
    }
    return cells;
  };
  const inMap = (number) => number >= 0 && number < mapSize;
  const ones = (number) => cross(number).filter(([x]) => inMap(x));

  const begin = () => ({
    width: data.roi[1] - data.roi[0], ratio: data.ratio, at: position(data.border, data.roi, data.ratio, false),
  });
  let state = begin();
  const roi = () => [data.roi[0], data.roi[0] + state.width];
  /** Borders of the region and the size of its cells, in pixels. */
  const map = (last) => {
    const [from, to] = region(roi(), state.ratio, last);
    return { from, to, size: (to - from) / mapSize };
  };
  /** The object's border in pixels: it keeps its place beside the region where that is changed. */
  const border = () => map(false).from + state.at * map(false).size;

  // Seven cells of the continuous region, enlarged; the other rule's cells are put where their pixels are.
  const [first, shown, unit, high] = [-3, 7, 60, 12];
  const [width, block, lines] = [shown * unit, 84, 2 * radius + 1];
  const ROWS = [false, true].flatMap((last) => ["floor", "trunc"].map((rounding) => ({ last, rounding })));
  const name = ({ last, rounding }) => `${rounding}, ${last ? "last pixel" : "continuous"}`;
  const side = (row) => Object.keys(sides).find((key) => sides[key][0] === row.rounding && sides[key][1] === row.last);
  const height = ROWS.length * block + 38;
  const scene = drawing(width, height, "Cells of the heatmap around the left border of the region");
  const X = (pixel) => ((pixel - map(false).from) / map(false).size - first) * unit;
  const strips = ROWS.map((row, number) => {
    const layer = svg("g", {});
    const words = `${name(row)}${side(row) ? `: ${side(row)}` : ""}`;
    scene.append(svg("g", { transform: `translate(0 ${number * block})` }, svg("text", { x: 0, y: 12 }, words), layer));
    return layer;
  });
  const axis = svg("g", { transform: `translate(0 ${ROWS.length * block})`, "aria-hidden": "true" });
  const handle = kit.grip({ r: 8, class: "cpm-handle" });
  const where = () => `${text(state.at)} cells from the border of the region, at pixel ${text(border())}`;
  kit.movable(handle, {
    // Never to a whole number of cells, where rounding errors would choose the side.
    label: "left border of the object", step: unit / 5, value: where,
    move: (dx) => {
      state.at = clamp(state.at + dx / unit, first + 0.1, first + shown - 0.1);
      show();
    },
  });
  scene.append(axis, handle);

  /** One strip: cells in three rows, the cross in them, and the points that are put into cell 0. */
  function strip({ last, rounding }) {
    const { from, size } = map(last);
    const left = (number) => clamp(X(from + number * size), 0, width);
    const own = cell(border(), roi(), state.ratio, last, rounding);
    const begins = Math.floor((map(false).from + first * map(false).size - from) / size);
    const nodes = [];
    for (let number = begins; left(number) < width; number++) {
      const [x1, x2] = [left(number), left(number + 1)];
      if (x2 <= x1) continue;
      for (let line = 0; line < lines; line++) {
        const one = cross(own).some(([x, y]) => x === number && y === line - radius);
        nodes.push(svg("rect", {
          x: x1, y: 18 + line * high, width: x2 - x1, height: high,
          class: `cpm-cell${inMap(number) ? "" : " cpm-beyond"}${one ? " cpm-one" : ""}`,
        }));
      }
      if (x2 - x1 > 16) {
        nodes.push(svg("text", { x: (x1 + x2) / 2, y: 36 + lines * high, "text-anchor": "middle" }, text(number, 0)));
      }
    }
    const [zero, one] = [left(rounding === "trunc" ? -1 : 0), left(1)];
    nodes.push(
      svg("rect", { x: zero, y: 20 + lines * high, width: one - zero, height: 4, class: "cpm-reaching" }),
      svg("line", { x1: left(0), x2: left(0), y1: 15, y2: 26 + lines * high, class: "cpm-edge" }),
      // On a white one, because it crosses cells of its own colour.
      ...["cpm-under", "cpm-line cpm-truth"].map((kind) =>
        svg("line", { x1: X(border()), x2: X(border()), y1: 15, y2: 19 + lines * high, class: kind })));
    return nodes;
  }

  /** Round pixels within the view. */
  function pixels() {
    const { from, size } = map(false);
    const power = 10 ** Math.floor(Math.log10(size));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= size * 0.99);
    const start = Math.ceil((from + first * size) / step);
    const marks = Array.from({ length: shown + 1 }, (_, i) => (start + i) * step);
    return marks.filter((mark) => X(mark) > 8 && X(mark) < width - 50);
  }

  const numbers = kit.teller();
  const signed = (value, digits) => (value < 0 ? `(${text(value, digits)})` : text(value, digits));
  function arithmetic(last) {
    const stands = stored(roi(), last);
    const { from, to, size } = map(last);
    const [down, cut] = ["floor", "trunc"].map((way) => cell(border(), roi(), state.ratio, last, way));
    return `${last ? "Last pixel" : "Continuous"}: the RoI from ${text(stands[0], 0)} to ${text(stands[1], 0)} has a ` +
      `region from ${text(from)} to ${text(to)}, with cells of (${text(to)} − ${signed(from)}) / ${mapSize} = ` +
      `${text(size, 3)} pixels. The border lies at (${text(border())} − ${signed(from)}) / ${text(size, 3)} = ` +
      `${text(position(border(), roi(), state.ratio, last))}: floor ${text(down, 0)}, trunc ${text(cut, 0)}.`;
  }
  function outcome(words, [rounding, last]) {
    const own = cell(border(), roi(), state.ratio, last, rounding);
    const seen = centre(own, roi(), state.ratio, last);
    const read = inMap(own)
      ? `its centre is read as ${text(seen)}, ${text(Math.abs(seen - border()))} pixels from the border`
      : "outside the map";
    return `${words}: cell ${text(own, 0)}, ${read}; ${ones(own).length} of ${cross(own).length} ones are in the map.`;
  }

  function show() {
    ROWS.forEach((row, number) => strips[number].replaceChildren(...strip(row)));
    axis.replaceChildren(
      svg("line", { x1: 0, x2: width, y1: 8, y2: 8, class: "cpm-edge" }),
      ...pixels().flatMap((mark) => [
        svg("line", { x1: X(mark), x2: X(mark), y1: 8, y2: 13, class: "cpm-edge" }),
        svg("text", { x: X(mark), y: 32, "text-anchor": "middle" }, String(Number(mark.toPrecision(6)))),
      ]),
      svg("text", { x: width, y: 32, "text-anchor": "end" }, "pixels"));
    handle.at(X(border()), ROWS.length * block + 8);
    set(handle, { "aria-valuetext": where() });
    numbers.tell(
      arithmetic(false), arithmetic(true), ...Object.entries(sides).map(([words, values]) => outcome(words, values)));
  }

  const slider = kit.slider("width of the RoI", {
    min: 8, max: 224, step: 8, value: state.width, show: (value) => `${text(value, 0)} px`,
    change: (value) => {
      state.width = value;
      show();
    },
  });
  const ratios = kit.choice("mapping ratio", {
    options: data.ratios.map((value) => [value, String(value)]),
    value: state.ratio,
    change: (value) => {
      state.ratio = value;
      show();
    },
  });
  const again = kit.button("start again", () => {
    state = begin();
    slider.set(state.width);
    ratios.querySelector(`input[value="${state.ratio}"]`).checked = true;
    show();
  });
  const style = html("style", {}, [
    ".cpm-cell{fill:none;stroke:currentColor;stroke-opacity:.45;stroke-width:1;vector-effect:non-scaling-stroke}",
    ".cpm-one{fill:var(--cpm-truth)}",
    ".cpm-beyond{stroke-dasharray:2 3}",
    ".cpm-beyond.cpm-one{fill-opacity:.3}",
    ".cpm-edge{stroke:currentColor;stroke-width:2;vector-effect:non-scaling-stroke}",
    ".cpm-under{stroke:#fff;stroke-width:5;vector-effect:non-scaling-stroke}",
    ".cpm-reaching{fill:var(--cpm-series1)}",
    ".cpm-handle{fill:var(--cpm-truth);stroke:#222;stroke-width:1.5;vector-effect:non-scaling-stroke}",
    ".cpm-evidence{font-size:.85em;margin:.3rem 0}",
  ].map((rule) => `.cpm-explorer[data-name=conventions] ${rule}`).join(""));
  const mark = (kind) => svg("rect", { x: 3, y: 1, width: 14, height: 10, class: kind });
  const key = kit.legend(
    ["truth", "left border of the object"],
    [svg("line", { x1: 10, x2: 10, y1: 0, y2: 12, class: "cpm-edge" }), "left border of the region"],
    [mark("cpm-cell cpm-one"), "1 in the target"], [mark("cpm-cell cpm-beyond cpm-one"), "1 outside the map, lost"],
    [svg("rect", { x: 2, y: 4, width: 16, height: 4, class: "cpm-reaching" }), "borders put into cell 0"]);
  const [header, ...rows] = data.effects;
  const effects = html("table", {},
    html("thead", {}, html("tr", {}, ...header.map((words) => html("th", { scope: "col" }, words)))),
    html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map((words) => html("td", {}, words))))));
  kit.root.append(
    style, kit.controls(ratios, slider, again),
    columns(column(scene, key), column(numbers, effects, html("p", { class: "cpm-evidence" }, data.evidence))));
  show();
  return { region, position, cell, centre, ones };
}
