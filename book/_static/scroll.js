// What scrolls sideways (long lines of code and of outputs, on a narrow screen) can be reached with the keyboard.
(() => {
  const reach = () => {
    for (const node of document.querySelectorAll("main :is(pre, .output, .pst-scrollable-table-container)")) {
      if (node.scrollWidth > node.clientWidth) node.tabIndex = 0;
      else node.removeAttribute("tabindex");
    }
  };
  addEventListener("load", reach);
  addEventListener("resize", reach);
})();
