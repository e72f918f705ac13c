// Draws the server's charts again with uPlot: a cursor that all charts share, the values under it, and zoom by dragging
// (a double click shows all again). Without this file, or without uPlot, the server's pictures stay.
(() => {
  "use strict";
  if (!window.uPlot) return;
  const plots = new Map();
  const sync = uPlot.sync("charts");
  const two = (number) => String(number).padStart(2, "0");
  const utc = (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC");
  const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 2 });

  function clock(seconds, step) {
    const at = new Date(seconds * 1000);
    const isDay = step >= 86400 || (at.getUTCHours() === 0 && at.getUTCMinutes() === 0 && at.getUTCSeconds() === 0);
    if (isDay) return at.toLocaleString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
    return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}${step < 60 ? `:${two(at.getUTCSeconds())}` : ""}`;
  }

  // The style sheet knows the colours, by the classes that the server's picture has.
  function colour(kind) {
    const probe = document.createElement("span");
    probe.className = kind;
    probe.hidden = true;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  // Returns the times, and for each line its values; bars have every period, so that a gap is a zero.
  function table(plot) {
    const times = new Set();
    if (plot.kind === "bars") {
      for (let at = Math.floor(plot.start / plot.period) * plot.period; at < plot.end; at += plot.period) times.add(at);
    }
    for (const line of plot.lines) for (const [at] of line.points) times.add(at);
    const sorted = [...times].sort((a, b) => a - b);
    const rows = plot.lines.map((line) => {
      const values = new Map(line.points);
      return sorted.map((at) => values.get(at) ?? (plot.kind === "bars" ? 0 : null));
    });
    return [sorted.map((at) => at / 1000), rows];
  }

  function options(plot, rows, width, tip) {
    const root = getComputedStyle(document.documentElement);
    const faint = root.getPropertyValue("--faint").trim();
    const axis = { stroke: faint, font: "11px system-ui, sans-serif", grid: { stroke: root.getPropertyValue("--line").trim(), width: 1 }, ticks: { show: false } };
    const isBars = plot.kind === "bars";
    // Stacked bars: the first series drawn is the sum of all lines, the last one the first line alone.
    const order = plot.lines.map((_, place) => place).reverse();
    const series = (isBars ? order : order.toReversed()).map((place) => {
      const stroke = colour(plot.lines[place].kind);
      return isBars
        ? { label: plot.lines[place].label, fill: stroke, width: 0, paths: uPlot.paths.bars({ size: [0.9, 40], align: 1 }), points: { show: false } }
        : { label: plot.lines[place].label, stroke, width: 2, spanGaps: false, points: { size: 5, fill: stroke } };
    });
    const range = (_, low, high) => {
      const levels = plot.levels.map((level) => level.value);
      const top = Math.max(high ?? 0, ...levels, 0);
      const bottom = Math.min(low ?? 0, ...levels, 0);
      return top === bottom ? [0, 4] : [bottom, top + (top - bottom) * 0.05];
    };
    return {
      width,
      height: 180,
      tzDate: utc,
      padding: [10, 8, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: sync.key },
        points: { show: !isBars },
        drag: { x: true, y: false },
        bind: { dblclick: (chart) => () => chart.setScale("x", { min: plot.start / 1000, max: plot.end / 1000 }) },
      },
      scales: { x: { min: plot.start / 1000, max: plot.end / 1000 }, y: { range } },
      axes: [{ ...axis, size: 28, values: (_, ticks, __, ___, step) => ticks.map((tick) => clock(tick, step)) }, { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => (tick >= 1e4 ? tick.toLocaleString("en", { notation: "compact" }) : number(tick))) }],
      series: [{}, ...series],
      hooks: {
        // A zoomed chart is being read: console.js lets the page be until all is shown again.
        setScale: [(chart, scale) => {
          if (scale !== "x") return;
          const { min, max } = chart.scales.x;
          if (min === plot.start / 1000 && max === plot.end / 1000) delete document.body.dataset.zoomed;
          else document.body.dataset.zoomed = "";
        }],
        draw: [(chart) => {
          const { ctx, bbox } = chart;
          for (const level of plot.levels) {
            const y = chart.valToPos(level.value, "y", true);
            ctx.save();
            ctx.strokeStyle = colour(level.kind);
            ctx.setLineDash([6, 4]);
            ctx.beginPath();
            ctx.moveTo(bbox.left, y);
            ctx.lineTo(bbox.left + bbox.width, y);
            ctx.stroke();
            ctx.restore();
          }
        }],
        setCursor: [(chart) => {
          const place = chart.cursor.idx;
          tip.hidden = place === null || place === undefined || chart.cursor.left < 0;
          if (tip.hidden) return;
          const at = new Date(chart.data[0][place] * 1000);
          const time = `${at.getUTCFullYear()}-${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())} ${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
          const told = plot.lines.flatMap((line, row) => (rows[row][place] === null ? [] : [`${line.label} ${number(rows[row][place])}`]));
          tip.textContent = `${time} · ${told.join(" · ") || "no values"}`;
        }],
      },
    };
  }

  function draw(holder) {
    const picture = holder.querySelector("svg");
    let plot;
    try { plot = JSON.parse(holder.dataset.plot); } catch { return; }
    const [times, rows] = table(plot);
    if (!times.length) return; // nothing to point at: the server's empty picture says so
    const place = document.createElement("div");
    place.className = "plot";
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", picture.getAttribute("aria-label") ?? "");
    const tip = document.createElement("p");
    tip.className = "tip";
    tip.hidden = true;
    place.append(tip);
    picture.before(place);
    picture.remove();
    holder.classList.add("plotted");
    let shown = rows;
    if (plot.kind === "bars") {
      const sums = rows.reduce((done, row) => [...done, row.map((value, at) => value + (done.at(-1)?.[at] ?? 0))], []);
      shown = sums.toReversed();
    }
    plots.set(place, new uPlot(options(plot, rows, place.clientWidth, tip), [times, ...shown], place));
    sizes.observe(place);
  }

  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) plots.get(target)?.setSize({ width: target.clientWidth, height: 180 });
  });

  function drawAll() {
    for (const [place, chart] of plots) {
      if (!place.isConnected) { sizes.unobserve(place); chart.destroy(); plots.delete(place); }
    }
    for (const holder of document.querySelectorAll(".chart[data-plot]:not(.plotted)")) draw(holder);
  }

  document.addEventListener("refreshed", drawAll);
  // Colours are read once: another scheme needs new charts.
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
  drawAll();
})();
