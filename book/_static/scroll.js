// What scrolls sideways (long lines of code and of outputs, on a narrow screen also wide pictures) can be reached with
// the keyboard.
(() => {
  const nodes = () => document.querySelectorAll("main :is(pre, .output, figure, .pst-scrollable-table-container)");
  const reach = () => {
    for (const node of nodes()) {
      const scrolls = getComputedStyle(node).overflowX !== "visible" && node.scrollWidth > node.clientWidth;
      if (scrolls) node.tabIndex = 0;
      else node.removeAttribute("tabindex");
    }
  };
  // A side bar that comes or goes makes room anew without an event of the window.
  const observer = new ResizeObserver(reach);
  addEventListener("load", () => nodes().forEach((node) => observer.observe(node)));
  addEventListener("resize", reach);
})();
