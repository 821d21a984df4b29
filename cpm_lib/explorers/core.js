// What all explorers share: elements, controls, handles to drag, charts. One kit per explorer.
// `root` is the explorer's element; nothing outside it is touched, and nothing is loaded.
function explorerKit(root) {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  /** An HTML element: html("p", {class: "x"}, "text", other). */
  const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  /** The same in SVG. */
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  const set = (node, attributes) => fill(node, attributes, []);
  /** Fixed decimals with a true minus sign; "–" for what is not a number. */
  const text = (value, digits = 2) =>
    value === null || value === undefined || !Number.isFinite(value)
      ? "–"
      : value.toFixed(digits).replace(/^-(?=0(\.0*)?$)/, "").replace("-", "\u2212");
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /** Side by side where there is room, below each other where there is not. */
  const columns = (...children) => html("div", { class: "cpm-columns" }, ...children);
  const column = (...children) => html("div", { class: "cpm-column" }, ...children);

  /** A drawing of width x height units that scales with the page; `label` is read aloud. */
  function drawing(width, height, label, attributes = {}) {
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label, ...attributes });
  }

  /** A picture inside a drawing. */
  const picture = (href, x, y, width, height) =>
    svg("image", { href, x, y, width, height, preserveAspectRatio: "none", class: "cpm-picture", "aria-hidden": "true" });

  /** Move a rectangle to the box [x1, y1, x2, y2]; an inverted one gets no size. */
  const place = (rectangle, [x1, y1, x2, y2]) =>
    set(rectangle, { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1) });
  /** A box in one of the colours of the book: "truth", "proposal", "stage1".."stage3", "prediction", "region". */
  const box = (kind, coordinates) => place(svg("rect", { class: `cpm-box cpm-${kind}` }), coordinates);

  let numbers = 0;
  /** A slider with its name and its value; `change(value)` is called for every movement. */
  function slider(label, { min, max, step, value, show = (x) => text(x), change }) {
    const output = html("output", {}, show(value));
    const input = html("input", {
      type: "range", min, max, step, value, autocomplete: "off",
      // Else JupyterLab takes the arrow keys for itself.
      "data-lm-suppress-shortcuts": "true",
      // Not the whole label, which holds the value too.
      "aria-label": label,
      "aria-valuetext": show(value),
    });
    const update = () => {
      output.textContent = show(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => {
      update();
      change(Number(input.value));
    });
    const control = html("label", { class: "cpm-control" }, html("span", {}, label), input, output);
    control.set = (next) => {
      input.value = next;
      update();
    };
    return control;
  }

  /** A few exclusive choices: options are [value, words]. */
  function choice(label, { options, value, change }) {
    const name = `cpm-${Math.random().toString(36).slice(2)}-${numbers++}`;
    const inputs = options.map(([option, words]) => {
      const input = html("input", {
        type: "radio", name, value: option, autocomplete: "off", "data-lm-suppress-shortcuts": "true",
      });
      input.checked = option === value;
      input.addEventListener("change", () => change(option));
      return html("label", {}, input, " ", words);
    });
    return html("fieldset", { class: "cpm-choice" }, html("legend", {}, label), ...inputs);
  }

  /** One of many, in groups: groups are [heading, [[value, words], ...]]. */
  function menu(label, { groups, value, change }) {
    const options = groups.map(([heading, entries]) =>
      html("optgroup", { label: heading }, ...entries.map(([option, words]) => html("option", { value: option }, words))));
    const select = html("select", { autocomplete: "off", "data-lm-suppress-shortcuts": "true", "aria-label": label }, ...options);
    select.value = value;
    select.addEventListener("change", () => change(select.value));
    return html("label", { class: "cpm-control" }, html("span", {}, label), select);
  }

  function button(label, press) {
    const node = html("button", { type: "button" }, label);
    node.addEventListener("click", press);
    return node;
  }

  /** Sliders, choices and buttons in a row. */
  const controls = (...children) => html("div", { class: "cpm-controls" }, ...children);

  /** Lines of live numbers; `tell("a", "b")` replaces them, and a screen reader says the new ones when at rest. */
  function teller() {
    const node = html("div", { class: "cpm-numbers", role: "status" });
    node.tell = (...lines) =>
      node.replaceChildren(...lines.map((line) => html("p", {}, ...(Array.isArray(line) ? line : [line]))));
    return node;
  }

  /** Names for colours and marks: entries are [kind of box or a mark within 20 x 12 units, words]. */
  const legend = (...entries) =>
    html("ul", { class: "cpm-legend" }, entries.map(([kind, words]) =>
      html("li", {},
        svg("svg", { viewBox: "0 0 20 12", "aria-hidden": "true" },
          typeof kind === "string" ? box(kind, [2, 2, 18, 10]) : kind),
        words)));

  /** Pointer position in the units of the drawing that holds `node`. */
  function position(node, event) {
    const point = new DOMPoint(event.clientX, event.clientY);
    return point.matrixTransform(node.ownerSVGElement.getScreenCTM().inverse());
  }

  /** A round handle for `movable`, with an area for fingers around the circle `spot`; `at(x, y)` puts it there. */
  function grip(attributes) {
    const spot = svg("circle", attributes);
    const node = svg("g", {}, svg("path", { d: "M0 0h.01", class: "cpm-reach" }), spot);
    return Object.assign(node, { spot, at: (x, y) => set(node, { transform: `translate(${x} ${y})` }) });
  }

  const grips = [];
  /** The round handle that is nearest to the pointer: areas for fingers may overlap. */
  function nearest(drawn, event) {
    const distance = ({ node }) => {
      const { left, top, width, height } = node.getBoundingClientRect();
      return Math.hypot(left + width / 2 - event.clientX, top + height / 2 - event.clientY);
    };
    return grips.filter(({ node }) => node.ownerSVGElement === drawn)
      .reduce((best, other) => (distance(other) < distance(best) ? other : best));
  }

  /** Make `node` movable by mouse, finger and arrow keys (with Shift ten steps).
   *  `move(dx, dy)` gets differences in units of the drawing; `value()` the words for where it is. */
  function movable(node, { label, step = 1, move, value }) {
    set(node, {
      tabindex: 0, role: "slider", "aria-label": label, "aria-roledescription": "handle", "aria-valuenow": 0,
      "data-lm-suppress-shortcuts": "true",
    });
    node.classList.add("cpm-movable");
    const moved = (dx, dy) => {
      move(dx, dy);
      node.setAttribute("aria-valuetext", value());
    };
    let last = null;
    const grab = (event) => {
      node.setPointerCapture(event.pointerId);
      last = position(node, event);
      node.focus({ preventScroll: true });
      event.preventDefault();
    };
    if (node.spot) grips.push({ node, grab });
    node.addEventListener("pointerdown", (event) =>
      (node.spot ? nearest(node.ownerSVGElement, event).grab : grab)(event));
    node.addEventListener("pointermove", (event) => {
      if (!last) return;
      const now = position(node, event);
      moved(now.x - last.x, now.y - last.y);
      last = now;
    });
    for (const end of ["pointerup", "pointercancel"]) node.addEventListener(end, () => (last = null));
    // What moves along one axis goes on with the key upwards, too, as every slider does.
    const [up, down] = move.length < 2 ? [[1, 0], [-1, 0]] : [[0, -1], [0, 1]];
    const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: up, ArrowDown: down };
    node.addEventListener("keydown", (event) => {
      const direction = directions[event.key];
      if (!direction) return;
      const size = step * (event.shiftKey ? 10 : 1);
      moved(direction[0] * size, direction[1] * size);
      event.preventDefault();
      event.stopPropagation();
    });
    node.setAttribute("aria-valuetext", value());
    return node;
  }

  /** Axes: x and y are {from, to, label, ticks, show}, show(tick) the words for a tick. Returns the drawing, scales, and a layer to draw in. */
  function chart(label, { width = 420, height = 300, x, y }) {
    const [left, right, top, bottom] = [46, 12, 12, 40];
    const scale = (axis, low, high) => (value) => low + ((value - axis.from) / (axis.to - axis.from)) * (high - low);
    const X = scale(x, left, width - right);
    const Y = scale(y, height - bottom, top);
    const grid = [
      ...x.ticks.map((tick) => [
        svg("line", { x1: X(tick), x2: X(tick), y1: top, y2: height - bottom, class: "cpm-grid" }),
        svg("text", { x: X(tick), y: height - bottom + 15, "text-anchor": "middle" }, (x.show || String)(tick)),
      ]),
      ...y.ticks.map((tick) => [
        svg("line", { x1: left, x2: width - right, y1: Y(tick), y2: Y(tick), class: "cpm-grid" }),
        svg("text", { x: left - 6, y: Y(tick) + 4, "text-anchor": "end" }, (y.show || String)(tick)),
      ]),
    ];
    const names = [
      svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x.label),
      svg("text", { transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.label),
    ];
    const layer = svg("g", {});
    const node = drawing(width, height, label, { class: "cpm-chart" });
    node.append(svg("g", { "aria-hidden": "true" }, ...grid.flat(), ...names), layer);
    const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${X(a).toFixed(2)} ${Y(b).toFixed(2)}`).join("");
    return { node, layer, X, Y, path };
  }

  /** Intersection over union of two boxes [x1, y1, x2, y2]; 0 for degenerate ones. */
  function iou(a, b) {
    const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
    const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
    if (width <= 0 || height <= 0) return 0;
    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
    return (width * height) / (area(a) + area(b) - width * height);
  }

  return {
    root, html, svg, set, text, clamp, columns, column, drawing, picture, place, box, slider, choice, menu, button,
    controls, teller, legend, grip, movable, chart, iou,
  };
}
