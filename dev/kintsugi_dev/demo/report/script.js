"use strict";
// The page is whole without this. It adds reading a chart second by second, and following a path through the graph.
const run = JSON.parse(document.getElementById("run").textContent);

const duration = (ms) =>
  ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : ms >= 9.95 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(1)} ms`;

function readable(figure) {
  const svg = figure.querySelector("svg");
  const output = figure.querySelector("output");
  const cursor = svg.querySelector(".cursor");
  const { start, end, left, right, origin } = Object.fromEntries(
    Object.entries(svg.dataset).map(([key, value]) => [key, value === "" ? null : Number(value)]),
  );
  const width = svg.viewBox.baseVal.width;
  const seconds = run.seconds.filter(([second]) => second >= Math.floor(start) && second < end);
  const x = (at) => left + ((at - start) / (end - start)) * (width - left - right);
  let index = -1;

  const show = (wanted) => {
    if (!seconds.length) return;
    index = Math.min(Math.max(wanted, 0), seconds.length - 1);
    const [second, p99, count, failed] = seconds[index];
    const time = new Date(second * 1000).toISOString().slice(11, 19);
    const after = origin === null ? "" : ` (${second - origin < 0 ? "−" : "+"}${Math.abs(second - origin).toFixed(0)} s)`;
    const failures = failed ? `, ${failed} failed` : "";
    output.textContent = `${time}${after}   p99 ${duration(p99)}, ${count} requests${failures}`;
    cursor.setAttribute("x1", x(second + 0.5));
    cursor.setAttribute("x2", x(second + 0.5));
    cursor.setAttribute("visibility", "visible");
  };
  const hide = () => {
    output.textContent = "";
    cursor.setAttribute("visibility", "hidden");
  };

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = start + (((event.clientX - box.left) / box.width) * width - left) / (width - left - right) * (end - start);
    const found = seconds.findIndex(([second]) => at < second + 1);
    show(found < 0 ? seconds.length - 1 : found);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: seconds.length - 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(steps[event.key]);
  });
}

function followable(graph) {
  const follow = (path) => {
    const pairs = new Set(path.slice(1).map((target, place) => `${path[place]} ${target}`));
    graph.classList.toggle("following", pairs.size > 0);
    for (const edge of graph.querySelectorAll(".edge")) edge.classList.toggle("followed", pairs.has(edge.dataset.edge));
  };
  for (const node of graph.querySelectorAll(".node")) {
    const path = node.dataset.path ? node.dataset.path.split(" ") : [];
    for (const kind of ["pointerenter", "focus"]) node.addEventListener(kind, () => follow(path));
    for (const kind of ["pointerleave", "blur"]) node.addEventListener(kind, () => follow([]));
  }
}

document.querySelectorAll("figure.readable").forEach(readable);
document.querySelectorAll("svg.graph").forEach(followable);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
