// The parts of a claim on one axis, the range that its tolerance asks for, and the verdict that follows.
function explorer(kit, data) {
  const { html, svg, set, text, columns, column, drawing } = kit;

  const missing = ({ difference, low, high }) => [difference, low, high].includes(null);
  /** The same middle with an interval `factor` times as wide. */
  function widened(quantity, factor) {
    const { difference: middle, low, high } = quantity;
    if (factor === 1 || missing(quantity)) return { difference: middle, low, high };
    return { difference: middle, low: middle + factor * (low - middle), high: middle + factor * (high - middle) };
  }
  /** Where the interval of one quantity lies. */
  function outcome({ sign, min, max, within }, { difference, low, high }) {
    if (missing({ difference, low, high })) return "open";
    if (sign === "0") {
      if (-within < low && high < within) return "holds";
      return low > within || high < -within ? "other side" : "open";
    }
    if (sign === "-") [low, high] = [-high, -low];
    if (low > min && (max === null || high < max)) return "holds";
    if (high < 0 || (max !== null && low > max)) return "other side";
    return low > 0 ? "sign only" : "open";
  }
  /** The status of a claim whose parts have these outcomes. */
  function status(outcomes) {
    if (outcomes.length && outcomes.every((one) => one === "holds")) return "reproduced";
    if (outcomes.includes("holds")) return "partly";
    if (outcomes.includes("other side")) return "contradicted";
    return outcomes.includes("sign only") ? "partly" : "not resolved";
  }

  let claim, edge, factor, digits;
  /** The end of the tolerance that the reader moves. */
  const key = () => (claim.tolerance.sign === "0" ? "within" : "min");
  const tolerance = () => ({ ...claim.tolerance, [key()]: edge });
  const own = () => factor !== 1 || edge !== claim.tolerance[key()];

  const told = (value, places = digits) => (value === 0 ? "0" : text(value, places));
  /** "low 1.20 > min 0.50": two numbers with their names, and as many digits as tell them apart. */
  function compared([name, value], [other, limit]) {
    let places = digits;
    while (value !== limit && places < 12 && text(value, places) === text(limit, places)) places += 1;
    const between = value > limit ? ">" : value < limit ? "<" : "=";
    return `${name} ${told(value, places)} ${between} ${other}${told(limit, places)}`;
  }
  /** The comparisons that decide the outcome of a part. */
  function reason(asked, quantity) {
    const { sign, min, max, within } = asked;
    const result = outcome(asked, quantity);
    if (missing(quantity)) return "the record has no interval";
    let [low, high] = [["low", quantity.low], ["high", quantity.high]];
    if (sign === "0") {
      const [least, most] = [["\u2212within ", -within], ["within ", within]];
      if (result === "other side") return low[1] > within ? compared(low, most) : compared(high, least);
      return [[low, low[1] > -within, least], [high, high[1] < within, most]]
        .filter(([, fits]) => fits === (result === "holds"))
        .map(([end, , limit]) => compared(end, limit)).join(" and ");
    }
    if (sign === "-") [low, high] = [["\u2212high", -quantity.high], ["\u2212low", -quantity.low]];
    const [zero, least, most] = [["", 0], ["min ", min], ["max ", max]];
    if (result === "holds") return compared(low, least) + (max === null ? "" : ` and ${compared(high, most)}`);
    if (result === "other side") return high[1] < 0 ? compared(high, zero) : compared(low, most);
    if (result === "open") return `${compared(low, zero)} and ${compared(high, zero)}`;
    return low[1] <= min ? `0 < ${compared(low, least)}` : `${compared(low, zero)}, but ${compared(high, most)}`;
  }

  /** The smallest of 1, 2, 5, 10, 20 ... that is not below `value`; also 0.1, 0.2 ... */
  function round(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return Number(([1, 2, 5, 10].find((size) => size * power >= value * (1 - 1e-9)) * power).toPrecision(1));
  }
  const decimals = (step) => Math.max(0, -Math.floor(Math.log10(step) + 1e-9));

  const [width, left, right, line] = [360, 66, 66, 18];
  const scene = drawing(width, 100, "Intervals of all parts on one axis; the list of parts says the same in words", {
    role: "img", class: "cpm-scene",
  });
  const mark = {
    range: (x, y, wide, high) => svg("rect", { x, y, width: Math.max(0, wide), height: high, class: "cpm-asked" }),
    measured: (x1, x2, y) => svg("path", { d: `M${x1} ${y}H${x2}`, class: "cpm-measured" }),
    interval: (x1, x, x2, y, kind) => svg("g", { class: `cpm-interval ${kind}` },
      svg("path", { d: `M${x1} ${y}H${x2}M${x1} ${y - 5}v10M${x2} ${y - 5}v10` }),
      svg("circle", { cx: x, cy: y, r: 3.5 })),
    paper: (x, y) => svg("path", { d: `M${x} ${y - 6}l6 6l-6 6l-6 -6z`, class: "cpm-paper" }),
    zero: (x, y1, y2) => svg("line", { x1: x, x2: x, y1, y2, class: "cpm-zero" }),
  };

  const shade = (result) => `cpm-${result.replace(" ", "-")}`;

  /** Draw the parts, one below the other: each has a heading, and below it a line for every run. */
  function draw(asked, parts) {
    const side = asked.sign === "-" ? -1 : 1;
    const ends = parts.flatMap(({ now, recorded, paper }) => [now.low, now.high, recorded.low, recorded.high, paper]);
    const known = [0, side * edge, asked.sign === "0" ? -edge : 0, side * (asked.max ?? 0), ...ends]
      .filter((end) => end !== null);
    const reach = () => Math.max(...known) - Math.min(...known);
    // Some of the range is seen even where nothing lies in it.
    known.push(side * (edge + (reach() || 1) / 20));
    const step = round(reach() / 4);
    const [from, to] = [Math.floor(Math.min(...known) / step), Math.ceil(Math.max(...known) / step)];
    const X = (value) => left + ((value / step - from) / (to - from)) * (width - left - right);
    const ticks = Array.from({ length: to - from + 1 }, (_, number) => (from + number) * step);
    const far = asked.max === null ? (side > 0 ? to : from) * step : side * asked.max;
    const [x1, x2] = (asked.sign === "0" ? [-edge, edge] : [side * edge, far]).map(X).sort((a, b) => a - b);
    scene.replaceChildren();
    let y = 0;
    for (const name of new Set(parts.map(({ part }) => part))) {
      const runs = parts.filter(({ part }) => part === name);
      const [top, bottom] = [y + line, y + line + runs.length * line];
      scene.append(svg("text", { x: 0, y: top - 5, class: "cpm-part" }, name),
        ...ticks.map((tick) => svg("line", { x1: X(tick), x2: X(tick), y1: top, y2: bottom, class: "cpm-grid" })),
        mark.range(x1, top, x2 - x1, bottom - top), mark.zero(X(0), top, bottom));
      runs.forEach(({ run, paper, recorded, now, result }, number) => {
        const middle = top + (number + 0.5) * line;
        scene.append(...[
          svg("text", { x: 0, y: middle + 4 }, run), svg("text", { x: width - right + 8, y: middle + 4 }, result),
          missing(now) || factor === 1 ? null : mark.measured(X(recorded.low), X(recorded.high), middle),
          missing(now) ? null : mark.interval(X(now.low), X(now.difference), X(now.high), middle, shade(result)),
          paper === null ? null : mark.paper(X(paper), middle),
        ].filter(Boolean));
      });
      y = bottom;
    }
    scene.append(...ticks.map((tick) =>
      svg("text", { x: X(tick), y: y + 14, "text-anchor": "middle" }, text(tick, decimals(step)))),
    svg("text", { x: (left + width - right) / 2, y: y + 31, "text-anchor": "middle" }, "difference"));
    set(scene, { viewBox: `0 0 ${width} ${y + 34}` });
  }

  const about = html("div", { class: "cpm-about" });
  const list = html("ul", { class: "cpm-parts" });
  const numbers = kit.teller();
  const BECAUSE = {
    reproduced: () => "Every part holds",
    partly: (holds) => (holds ? "Some parts hold and others do not"
      : "No part holds and none lies on the other side, but a sign is right"),
    contradicted: () => "No part holds, and an interval lies on the other side",
    "not resolved": () => "No part holds, and no interval lies on the other side",
  };
  function show() {
    const asked = tolerance();
    const parts = claim.parts.map((recorded) => {
      const now = widened(recorded, factor);
      return { ...recorded, recorded, now, result: outcome(asked, now) };
    });
    draw(asked, parts);
    list.replaceChildren(...parts.map(({ part, run, now, result }) =>
      html("li", {}, `${part}, ${run}: `, `${reason(asked, now)}: `, html("b", {}, result))));
    const results = parts.map(({ result }) => result);
    const verdict = status(results);
    const counts = ["holds", "sign only", "open", "other side"]
      .map((one) => [results.filter((result) => result === one).length, one]).filter(([count]) => count);
    const moved = edge !== claim.tolerance[key()];
    const yours = [
      moved ? `${key()} ${told(edge)} instead of ${told(claim.tolerance[key()])}` : null,
      factor === 1 ? null : `intervals ${text(factor)} times as wide as measured`,
    ].filter(Boolean).join(", ");
    numbers.tell(
      own() ? html("b", {}, `Your setting, not the register's: ${yours}.`)
        : `The register's setting: ${key()} ${told(edge)}, intervals as measured.`,
      `Parts: ${counts.map(([count, one]) => `${count} × ${one}`).join(", ")}.`,
      html("span", {}, `${BECAUSE[verdict](results.includes("holds"))}: `, html("b", {}, verdict), "."),
      ...(own() ? [`The register says: ${claim.status}.`] : []));
  }

  const sliders = { min: "least size (min)", within: "most size (within)" };
  for (const [name, label] of Object.entries(sliders)) {
    sliders[name] = kit.slider(label, {
      min: 0, max: 1, step: 0.1, value: 0, show: (value) => told(value),
      change: (value) => {
        edge = value;
        show();
      },
    });
  }
  const wide = kit.slider("width factor", {
    min: 0.25, max: 4, step: 0.25, value: 1,
    change: (value) => {
      factor = value;
      show();
    },
  });
  /** As the register has it. */
  function begin() {
    [edge, factor] = [claim.tolerance[key()], 1];
    sliders[key()].set(edge);
    wide.set(factor);
    show();
  }
  function choose(id) {
    claim = data.claims.find((one) => one.id === id);
    const ends = claim.parts.flatMap(({ low, high, paper }) => [low, high, paper]).filter((end) => end !== null);
    const reach = Math.max(claim.tolerance[key()], ...ends.map(Math.abs)) || 1;
    const step = round(reach / 100);
    digits = Math.max(2, decimals(step));
    for (const [name, slider] of Object.entries(sliders)) {
      slider.style.display = name === key() ? "" : "none";
      set(slider.querySelector("input"), { step, max: Number((Math.ceil(reach / step) * step).toPrecision(9)) });
    }
    const { sign, min, max, within } = claim.tolerance;
    const asked = {
      "+": `above ${told(min)} (min)`,
      "-": `below ${told(-min)} (\u2212min), so it is turned around: \u2212high is the end nearer to 0`,
      0: `between ${told(-within)} and ${told(within)} (within)`,
    }[sign];
    about.replaceChildren(
      html("p", {}, html("b", {}, `${claim.source}: ${claim.words}`)),
      html("p", {}, `Tested: ${claim.form}. Evidence ${claim.level}; 95 % intervals, ${claim.over}.`),
      html("p", {}, "Asked before the run: the whole interval ", max === null ? "" : `below ${told(max)} (max) and `,
        `${asked}.`));
    begin();
  }

  const groups = data.statuses.map((name) => [name, data.claims.filter((one) => one.status === name)])
    .filter(([, claims]) => claims.length)
    .map(([name, claims]) => [`${name} (${claims.length})`,
      claims.map(({ id, source, words }) => [id, `${source.split(",")[0]}: ${words || id}`])]);
  const menu = kit.menu("claim", { groups, value: data.start, change: choose });
  const legend = kit.legend(
    [mark.interval(1, 10, 19, 6, ""), "difference and its interval"], [mark.paper(10, 6), "the paper's number"],
    [mark.range(1, 0, 18, 12), "the whole interval has to lie here"],
    [mark.measured(1, 19, 6), "as measured, where your setting differs"]);
  const style = html("style", {}, [
    ".cpm-scene{max-width:34rem}",
    ".cpm-about p{margin:.2rem 0}",
    ".cpm-parts{margin:.5rem 0;padding-left:1.2rem;font-variant-numeric:tabular-nums}",
    "text.cpm-part{font-weight:700}",
    ".cpm-asked{fill:var(--cpm-truth);fill-opacity:.22}",
    ".cpm-zero{stroke:currentColor;stroke-width:1.5}",
    ".cpm-measured{stroke:currentColor;stroke-width:8;opacity:.25}",
    ".cpm-interval{stroke:currentColor;stroke-width:2;fill:none;color:#8a8a8a}",
    ".cpm-interval circle{fill:currentColor}",
    ".cpm-interval.cpm-holds{color:color-mix(in srgb,var(--cpm-series3) 75%,currentColor)}",
    ".cpm-interval.cpm-sign-only{color:color-mix(in srgb,var(--cpm-series1) 75%,currentColor)}",
    ".cpm-interval.cpm-other-side{color:color-mix(in srgb,var(--cpm-series2) 75%,currentColor)}",
    ".cpm-paper{fill:none;stroke:currentColor;stroke-width:1.5}",
  ].map((rule) => `.cpm-explorer[data-name=verdict] ${rule}`).join(""));
  const again = kit.button("start again", begin);
  kit.root.append(style, menu, about, columns(
    column(scene, legend, kit.controls(...Object.values(sliders), wide, again)), column(numbers, list)));
  choose(data.start);
  return { widened, outcome, status, reason };
}
