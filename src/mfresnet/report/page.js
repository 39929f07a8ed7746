"use strict";
// Draws the figures: resolves colour roles from the style sheet, applies the choices a reader made,
// and moves points along a slider. Every change redraws from the same description (`compose`).
(() => {
  const PAPER = 680; // CSS pixels between the margins of A4: printing lays figures out for this width
  const ROW = 22; // height of a row of the legend
  const SMALL = 400; // figures narrower than this get smaller marks
  const root = document.documentElement;
  const style = getComputedStyle(root);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const print = matchMedia("print");
  const touch = matchMedia("(pointer: coarse)").matches;
  const figures = [];
  let paper = false;

  const role = (name) => style.getPropertyValue("--" + name).trim();

  function colour(token) {
    const [name, opacity] = token.slice(1).split("/");
    const hex = role(name);
    if (!opacity) return hex;
    const part = (i) => parseInt(hex.slice(i, i + 2), 16);
    return `rgba(${part(1)},${part(3)},${part(5)},${opacity / 100})`;
  }

  // A deep copy with roles replaced by colours. Only values under a colour's key are roles: a data
  // set may well have a class called "@ink".
  function resolved(value, key) {
    if (Array.isArray(value)) {
      if (key === "colorscale") return value.map(([at, token]) => [at, token[0] === "@" ? colour(token) : token]);
      return value;
    }
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolved(v, k)]));
    return typeof value === "string" && /color$/.test(key) && value[0] === "@" ? colour(value) : value;
  }

  function merged(base, over) {
    const out = { ...base };
    for (const [key, value] of Object.entries(over || {})) {
      const both = value && typeof value === "object" && !Array.isArray(value) && out[key] && typeof out[key] === "object";
      out[key] = both ? merged(out[key], value) : value;
    }
    return out;
  }

  function theme() {
    const axis = {
      gridcolor: "@grid", linecolor: "@rule", zerolinecolor: "@rule", tickcolor: "@rule", showline: true,
      ticks: "outside", ticklen: 4, tickfont: { color: "@soft" }, title: { font: { color: "@soft" }, standoff: 8 },
    };
    return {
      axis,
      layout: {
        font: { family: role("sans") || getComputedStyle(document.body).fontFamily, size: 12.5, color: "@ink" },
        paper_bgcolor: "@panel", plot_bgcolor: "@panel", colorway: [...Array(10).keys()].map((k) => colour("@class-" + k)),
        margin: { l: 56, r: 14, t: 8, b: 44, autoexpand: false }, 
        legend: {
          font: { color: "@soft", size: 11.5 }, itemsizing: "constant", bgcolor: "rgba(0,0,0,0)",
          orientation: "h", x: 0, xref: "container", y: 1, yref: "container", yanchor: "top",
        },
        hoverlabel: { bgcolor: "@panel", bordercolor: "@rule", font: { color: "@ink" } },
        dragmode: touch ? false : "zoom", modebar: { bgcolor: "rgba(0,0,0,0)", color: "@muted", activecolor: "@accent" },
      },
    };
  }

  // Values of the moving traces at a position between frames: states move along straight pieces.
  function at(rows, position) {
    const low = Math.min(Math.floor(position), rows.length - 1);
    const high = Math.min(low + 1, rows.length - 1);
    const part = position - low;
    return rows[low].map((v, i) => v + part * (rows[high][i] - v));
  }

  function compose(figure) {
    const { spec, chosen } = figure;
    let layout = merged(theme().layout, spec.layout);
    let data = spec.data.map((trace) => ({ ...trace }));
    for (const [control, options] of Object.entries(spec.choices)) {
      const option = options[chosen[control]] || Object.values(options)[0];
      layout = merged(layout, option.layout);
      data = data.map((trace, i) => merged(trace, option.data && option.data[i]));
    }
    if (spec.frames)
      spec.frames.traces.forEach((t, i) => {
        data[t].x = at(spec.frames.x[i], figure.position);
        data[t].y = at(spec.frames.y[i], figure.position);
      });
    for (const name of ["xaxis", "yaxis"]) layout[name] = merged(theme().axis, layout[name]);
    const width = paper ? figure.paperWidth : Math.floor(figure.div.clientWidth);
    layout.width = Math.max(width, 120);
    if (layout.width < SMALL) data = data.map(smaller);
    // Margins are counted here, not found by the library, which can fail to settle on them for axes of
    // one scale: room for the legend's rows above, for a colour bar at the right.
    const above = legendRows(data, layout.width) * ROW;
    layout.showlegend = above > 0;
    layout.margin = { ...layout.margin, t: layout.margin.t + above };
    if (data.some((trace) => (trace.marker && trace.marker.colorbar) || (trace.colorbar && trace.showscale))) layout.margin.r = 62;
    if (paper) layout = merged(layout, { font: { size: 10.5 }, legend: { font: { size: 9.5 } } });
    layout.height = spec.aspect ? Math.round(layout.width * spec.aspect * (paper ? 0.86 : 1)) + above : spec.height * (paper ? 0.8 : 1);
    return { data: data.map((trace) => resolved(trace, "")), layout: resolved(layout, "") };
  }

  function legendRows(data, width) {
    const named = data.filter((trace) => trace.name && trace.showlegend !== false);
    if (named.length < 2) return 0;
    const entries = named.map((trace) => 58 + 6.6 * trace.name.replace(/&\w+;/g, "x").length);
    if (entries.reduce((sum, entry) => sum + entry, 0) <= width) return 1;
    // in several rows, every entry is as wide as the widest
    return Math.ceil(entries.length / Math.max(1, Math.floor(width / Math.max(...entries))));
  }

  // Marks keep their share of a small figure, or they would cover what they mark.
  function smaller(trace) {
    if (!trace.marker || trace.marker.size === undefined) return trace;
    const { size, line } = trace.marker;
    const less = (v) => Math.round(v * 7) / 10;
    const marker = { ...trace.marker, size: Array.isArray(size) ? size.map(less) : less(size) };
    if (line) marker.line = { ...line, width: line.color === "@panel" ? 0 : less(line.width) };
    return { ...trace, marker };
  }

  function draw(figure) {
    const { data, layout } = compose(figure);
    figure.drawn = layout.width;
    return Plotly.react(figure.div, data, layout, {
      displaylogo: false, displayModeBar: touch ? false : "hover", scrollZoom: false,
      // named one by one: the library's own set can send a figure to a server
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
      toImageButtonOptions: { format: "svg", filename: document.title },
    });
  }

  const drawAll = () => figures.forEach(draw);

  function printing(on) {
    if (paper === on) return;
    paper = on;
    if (on) root.dataset.paper = ""; else delete root.dataset.paper;
    drawAll();
  }

  for (const div of document.querySelectorAll(".plot")) {
    const spec = JSON.parse(div.firstElementChild.textContent);
    const holder = div.parentElement;
    const alone = holder.classList.contains("wide") || holder.parentElement.children.length === 1;
    const figure = {
      div, spec, chosen: {}, section: div.closest("section"), paperWidth: (alone ? PAPER : (PAPER - 10) / 2) - 16,
      position: spec.frames ? spec.frames.values.length - 1 : 0,
    };
    div.replaceChildren();
    figures.push(figure);
    draw(figure);
  }

  document.addEventListener("change", (event) => {
    const { control } = event.target.dataset;
    if (!control) return;
    for (const figure of figures)
      if (figure.section === event.target.closest("section") && control in figure.spec.choices) {
        figure.chosen[control] = event.target.value;
        draw(figure);
      }
  });

  for (const slider of document.querySelectorAll(".slider")) {
    const moving = figures.filter((figure) => figure.section === slider.closest("section") && figure.spec.frames);
    const input = slider.querySelector("input");
    const output = slider.querySelector("output");
    const button = slider.querySelector("button");
    const last = Number(input.max);
    let playing = false;

    function show(position) {
      const { values } = moving[0].spec.frames;
      output.textContent = at(values.map((v) => [v]), position)[0].toFixed(2);
      return Promise.all(
        moving.map((figure) => {
          const { frames } = figure.spec;
          figure.position = position;
          const update = { x: frames.x.map((rows) => at(rows, position)), y: frames.y.map((rows) => at(rows, position)) };
          return Plotly.restyle(figure.div, update, frames.traces);
        }),
      );
    }

    async function play(on) {
      playing = on;
      button.classList.toggle("playing", on);
      button.setAttribute("aria-label", on ? "pause" : "play");
      if (!on) return;
      if (Number(input.value) >= last) input.value = 0;
      const from = Number(input.value);
      const began = performance.now();
      while (playing) {
        const position = Math.min(from + ((performance.now() - began) / 6000) * last, last);
        input.value = position;
        await show(position);
        if (position >= last) return play(false);
        await new Promise(requestAnimationFrame);
      }
    }

    input.addEventListener("input", () => { play(false); show(Number(input.value)); });
    button.addEventListener("click", () => play(!playing));
    output.textContent = moving[0].spec.frames.values[last].toFixed(2);
  }

  new ResizeObserver(() => {
    if (paper) return;
    for (const figure of figures)
      if (Math.floor(figure.div.clientWidth) !== figure.drawn) draw(figure);
  }).observe(document.querySelector("main"));
  dark.addEventListener("change", drawAll);
  print.addEventListener("change", (event) => printing(event.matches));
  addEventListener("beforeprint", () => printing(true));
  addEventListener("afterprint", () => printing(false));
  root.dataset.drawn = figures.length;
})();
