// Charts of lines: the drawing in the page is replaced by an interactive one of the same data.
(() => {
  "use strict";
  const whole = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 100000, 1000000];
  const short = (value) => (value == null ? "–" : value && Math.abs(value) < 1e-3 ? String(Number(value.toPrecision(3)).toExponential()) : String(Number(value.toPrecision(4))));
  const draw = (holder) => {
    const data = JSON.parse(holder.querySelector("script").textContent);
    const place = holder.querySelector("figure");
    const svg = place.querySelector("svg");
    const joined = uPlot.join(data.lines.map((line) => [line.x, line.y]));
    const axis = (label) => ({ label, stroke: page.color("--soft"), grid: { stroke: page.color("--grid"), width: 1 }, ticks: { stroke: page.color("--line"), width: 1, size: 5 },
      font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 20 });
    const corners = (plot) => {
      const at = (x, y) => [plot.valToPos(x, "x", true), plot.valToPos(y, "y", true)];
      if (data.diagonal) {
        plot.ctx.save();
        plot.ctx.strokeStyle = page.color("--soft");
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
        plot.ctx.fillStyle = page.color(`--c${color}`);
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
      axes: [{ ...axis(data.x), size: 34, ...(data.whole.includes("x") ? { incrs: whole } : {}) }, { ...axis(data.y), size: 62, values: (plot, values) => values.map((value) => (value == null ? "" : short(value))) }],
      series: [{ label: data.x, value: (plot, value) => short(value) }, ...data.lines.map((line, number) => ({
        label: line.name, stroke: page.color(`--c${line.color}`), width: 1.8, dash: line.style === "dashed" ? [6, 4] : undefined,
        spanGaps: true, points: { show: data.dots[number], size: 6, fill: page.color(`--c${line.color}`) }, value: (plot, value) => short(value) }))],
      hooks: { draw: [corners] },
    };
    holder.plot?.destroy();
    place.querySelectorAll(".legend").forEach((each) => { each.hidden = data.lines.length <= 12; });
    holder.plot = new uPlot(options, joined, place);
    svg.classList.add("replaced"); // it is printed
  };
  const holders = [...document.querySelectorAll(".plot")];
  const drawAll = () => holders.forEach((holder) => { if (holder.plot) draw(holder); });
  page.onChangedColors(drawAll);
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
  }), { rootMargin: "600px" });
  holders.forEach((holder) => seen.observe(holder));
  let widthBefore = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== widthBefore) { widthBefore = innerWidth; drawAll(); } });
})();
