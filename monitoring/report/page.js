"use strict";
// Cross-hair with values, sorting of tables, light and dark, closed parts opened for the printer. The page reads without it.
(function () {
  const tip = document.getElementById("tip");
  const SVG = "http://www.w3.org/2000/svg";

  function put(parent, name, attributes) {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    parent.appendChild(node);
  }

  function nearest(points, x, step) {
    let best = null;
    for (const point of points) {
      if (step ? point[0] <= x + 0.5 : best === null || Math.abs(point[0] - x) < Math.abs(best[0] - x)) best = point;
    }
    return best;
  }

  for (const svg of document.querySelectorAll("svg[data-points]")) {
    const data = JSON.parse(svg.getAttribute("data-points"));
    const hover = svg.querySelector(".hover");
    const leave = function () { hover.replaceChildren(); tip.hidden = true; };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("pointermove", function (event) {
      const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
      const x = (event.clientX - box.left) / box.width * view.width;
      let at = null;
      for (const line of data.l) {
        const point = line.s ? null : nearest(line.p, x, false);
        if (point && (at === null || Math.abs(point[0] - x) < Math.abs(at[0] - x))) at = point;
      }
      leave();
      if (at === null || Math.abs(at[0] - x) > 40) return;
      put(hover, "line", { x1: at[0], x2: at[0], y1: data.b[0], y2: data.b[1] });
      const rows = [];
      for (const line of data.l) {
        const point = nearest(line.p, at[0], line.s);
        if (point === null || point[3] === "" || (!line.s && Math.abs(point[0] - at[0]) > 6)) continue;
        if (!line.s) put(hover, "circle", { cx: point[0], cy: point[1], r: 3.6, class: line.c });
        const row = document.createElement("div"), key = document.createElement("i"), value = document.createElement("b");
        key.className = line.c;
        value.textContent = point[3] + (data.u ? " " + data.u : "");
        row.append(key, line.n + " ", value);
        rows.push(row);
      }
      const top = document.createElement("div");
      top.textContent = data.x + ": " + at[2];
      tip.replaceChildren(top, ...rows);
      tip.hidden = false;
      const left = Math.min(event.pageX + 14, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8);
      tip.style.left = Math.max(left, 4) + "px";
      tip.style.top = event.pageY + 14 + "px";
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("th").forEach(function (head, column) {
      head.addEventListener("click", function () {
        const down = head.getAttribute("aria-sort") !== "descending";
        table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0], rows = Array.from(body.rows);
        const key = function (row) { return row.cells[column].dataset.key; };
        rows.sort(function (a, b) {
          const one = key(a), two = key(b);
          if (one === undefined || two === undefined) return (one === undefined) - (two === undefined);
          const numbers = [Number(one), Number(two)];
          const order = numbers.some(Number.isNaN) ? one.localeCompare(two, undefined, { numeric: true }) : numbers[0] - numbers[1];
          return down ? -order : order;
        });
        body.append(...rows);
      });
    });
  }

  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", function () {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  window.addEventListener("beforeprint", function () {
    for (const part of document.querySelectorAll("details:not([open]):not(.screen)")) { part.open = true; part.dataset.printed = "1"; }
  });
  window.addEventListener("afterprint", function () {
    for (const part of document.querySelectorAll("details[data-printed]")) { part.open = false; delete part.dataset.printed; }
  });
})();
