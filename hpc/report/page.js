const data = JSON.parse(document.getElementById("data").textContent);
const isDark = matchMedia("(prefers-color-scheme: dark)");
const narrow = 600;  // pixels; a chart has no room for a legend at its side there
const palette = ["#3b82f6", "#e8793a", "#2f9e63", "#d64545", "#9b72cf", "#c2983b", "#1fa3a3", "#d869a8", "#7d8797", "#7aa63b"];

/** What was packed into the page under this id, as a URL. */
async function unpacked(id) {
  const packed = await fetch("data:application/gzip;base64," + document.getElementById(id).textContent.trim());
  const stream = packed.body.pipeThrough(new DecompressionStream("gzip"));
  const code = await new Response(stream).text();
  return URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
}

async function loadPlotly() {
  const script = document.createElement("script");
  script.src = await unpacked("plotly");
  await new Promise((resolve, reject) => { script.onload = resolve; script.onerror = reject; document.head.append(script); });
}

function template() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue("--" + name).trim();
  const axis = { gridcolor: color("line"), linecolor: color("line"), zeroline: false, automargin: true };
  return { color, template: { layout: {
    font: { color: color("text"), family: getComputedStyle(document.body).fontFamily, size: 12 },
    title: { x: 0, xref: "paper", font: { size: 14 } },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: palette,
    xaxis: axis, yaxis: axis, margin: { l: 60, r: 15, t: 45, b: 45 }, hovermode: "closest",
    hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("text") } },
    legend: { font: { size: 11 } },
  } } };
}

/** A trace with the colour that its kind of span, or its place among its like, has in this look. */
function coloured(trace, color) {
  if (!("kind" in trace) && !("colour" in trace)) return trace;
  const { kind, colour, ...rest } = trace;
  const shade = kind ? color(kind) : palette[colour % palette.length];
  const marker = { ...rest.marker, color: shade };
  return { ...rest, marker, line: { ...rest.line, color: shade }, fillcolor: rest.type === "box" ? shade + "55" : shade };
}

function draw(place, figure) {
  const { color, template: look } = template();
  const traces = figure.data.map((trace) => coloured(trace, color));
  const layout = { height: 420, ...figure.layout, template: look };
  if (place.clientWidth < narrow) {
    layout.showlegend &&= traces.length <= palette.length;
    layout.legend = { orientation: "h", y: 1, yanchor: "bottom", x: 0 };
    layout.title = { text: layout.title.text.replace(": ", ":<br>"), y: 1, yref: "container", yanchor: "top", pad: { t: 16 } };
    layout.margin = { ...look.layout.margin, t: layout.showlegend ? 120 : 45 };
  }
  Plotly.react(place, traces, layout, { responsive: true, displaylogo: false });
}

function drawViews() {
  const views = data.views[document.getElementById("metric").value];
  const view = views[document.getElementById("view").selectedIndex];
  document.querySelectorAll(".charts > div").forEach((place, number) => draw(place, view.figures[number]));
}

function drawTimelines() {
  document.querySelectorAll("#timelines > div").forEach((place, number) => draw(place, data.timelines[number]));
}

function fill(id, names) {
  const select = document.getElementById(id);
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.onchange = drawViews;
}

function escaped(text) {
  const place = document.createElement("span");
  place.textContent = text;
  return place.innerHTML;
}

async function showTable() {
  const { default: DataTable } = await import(await unpacked("itables"));
  const { columns, numeric, rows } = data.table;
  new DataTable("#results", {
    data: rows,
    columns: columns.map((name, number) => ({
      title: escaped(name), type: numeric[number] ? "num" : "string", defaultContent: "",
      className: numeric[number] ? "dt-right" : "dt-left", render: DataTable.render.text(),
    })),
    order: [], scrollX: true, scrollY: "60vh", scrollCollapse: true, scroller: true, deferRender: true,
    ordering: { indicators: false }, columnControl: ["order", "searchDropdown"],
    layout: { topStart: "info", topEnd: "search", bottomStart: null, bottomEnd: null },
  });
}

function dress() {
  const { classList } = document.documentElement;
  classList.toggle("dark", isDark.matches && !classList.contains("paper"));
}

function redraw() {
  dress();
  if (metrics.length) drawViews();
  drawTimelines();
}

dress();
await Promise.all([loadPlotly(), showTable()]);
const metrics = Object.keys(data.views);
if (metrics.length) {
  fill("metric", metrics);
  fill("view", data.views[metrics[0]].map((view) => view.name));
  drawViews();
}
drawTimelines();
isDark.addEventListener("change", redraw);
for (const [event, isPaper] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => { document.documentElement.classList.toggle("paper", isPaper); redraw(); });
}
document.documentElement.dataset.ready = "yes";
