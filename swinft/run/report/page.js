(() => {
  "use strict";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";

  // The switch between light and dark; the choice is kept where the browser allows it.
  const button = document.getElementById("theme");
  const stored = { get() { try { return localStorage.getItem("swinft-theme"); } catch { return null; } },
                   set(value) { try { localStorage.setItem("swinft-theme", value); } catch { /* it is not kept */ } } };
  if (["light", "dark"].includes(stored.get())) root.dataset.theme = stored.get();
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`); };
  const listeners = [label];
  const changed = () => listeners.forEach((each) => each());
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; stored.set(root.dataset.theme); changed(); });
  dark.addEventListener("change", changed);
  label();

  // Tables are sorted by a click on a column's name, or by the keyboard, as the name is a button.
  const keyOf = (row, column) => { const cell = row.cells[column]; return "key" in cell.dataset ? Number(cell.dataset.key) : cell.textContent; };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? (a > b) - (a < b) : String(a).localeCompare(String(b), undefined, { numeric: true }));
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const name = document.createElement("button");
      name.type = "button";
      name.append(...head.childNodes);
      head.append(name);
      name.addEventListener("click", () => {
        const numeric = [...table.tBodies[0].rows].some((row) => "key" in row.cells[column].dataset);
        const before = head.getAttribute("aria-sort");
        const order = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...table.tBodies[0].rows].sort((a, b) => sign * compare(keyOf(a, column), keyOf(b, column)));
        table.tBodies[0].append(...rows);
      });
    });
  }

  // Charts of lines: the drawing in the page is replaced by an interactive one of the same data.
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const short = (value) => (value == null ? "–" : String(Number(value.toPrecision(4))));
  const draw = (holder) => {
    const data = JSON.parse(holder.querySelector("script").textContent);
    const place = holder.querySelector("figure");
    const svg = place.querySelector("svg");
    const joined = uPlot.join(data.lines.map((line) => [line.x, line.y]));
    const axis = (label) => ({ label, stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--line"), width: 1, size: 5 },
      font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 20 });
    const corners = (plot) => {
      const at = (x, y) => [plot.valToPos(x, "x", true), plot.valToPos(y, "y", true)];
      if (data.diagonal) {
        plot.ctx.save();
        plot.ctx.strokeStyle = css("--soft");
        plot.ctx.setLineDash([4, 4]);
        plot.ctx.beginPath();
        plot.ctx.moveTo(...at(data.xRange[0], data.yRange[0]));
        plot.ctx.lineTo(...at(data.xRange[1], data.yRange[1]));
        plot.ctx.stroke();
        plot.ctx.restore();
      }
      for (const [x, y, color] of data.marks) {
        if (x === null || y === null) continue;
        plot.ctx.beginPath();
        plot.ctx.arc(...at(x, y), 4.5 * devicePixelRatio, 0, 2 * Math.PI);
        plot.ctx.fillStyle = css(`--c${color}`);
        plot.ctx.fill();
      }
    };
    const width = Math.max(220, place.clientWidth);
    const options = {
      width, height: Math.round(Math.min(340, Math.max(220, width * 0.62))),
      legend: { show: data.lines.length <= 12 },
      cursor: { drag: { x: true, y: true, uni: 20 } },
      scales: { x: { time: false, range: () => data.xRange },
                y: { distr: data.log ? 3 : 1, range: () => data.yRange } },
      axes: [{ ...axis(data.x), size: 34 }, { ...axis(data.y), size: 62, values: (plot, values) => values.map((value) => (value == null ? "" : short(value))) }],
      series: [{ label: data.x, value: (plot, value) => short(value) }, ...data.lines.map((line, number) => ({
        label: line.name, stroke: css(`--c${line.color}`), width: 1.8, dash: line.style === "dashed" ? [6, 4] : undefined,
        spanGaps: true, points: { show: data.dots[number], size: 6, fill: css(`--c${line.color}`) }, value: (plot, value) => short(value) }))],
      hooks: { draw: [corners] },
    };
    holder.plot?.destroy();
    place.querySelectorAll(".legend").forEach((each) => { each.hidden = data.lines.length <= 12; });
    holder.plot = new uPlot(options, joined, place);
    svg.classList.add("replaced"); // it is printed
  };
  const holders = [...document.querySelectorAll(".plot")];
  const drawAll = () => holders.forEach((holder) => { if (holder.plot) draw(holder); });
  listeners.push(drawAll);
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
  }), { rootMargin: "600px" });
  holders.forEach((holder) => seen.observe(holder));
  let widthBefore = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== widthBefore) { widthBefore = innerWidth; drawAll(); } });
})();
