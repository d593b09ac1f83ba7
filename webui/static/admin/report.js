"use strict";
// Choosing a stretch of the traffic graph by dragging over it; the two fields beside it do the same without this script.
for (const box of document.querySelectorAll(".io")) {
  const svg = box.querySelector("svg");
  if (!svg) continue;
  const left = Number(box.dataset.left), right = Number(box.dataset.right), width = Number(box.dataset.width);
  const from = Number(box.dataset.from), to = Number(box.dataset.to);
  const height = svg.viewBox.baseVal.height;
  const place = (event) => {
    const frame = svg.getBoundingClientRect();
    return Math.min(right, Math.max(left, ((event.clientX - frame.left) / frame.width) * width));
  };
  const time = (x) => from + ((x - left) / (right - left)) * (to - from);
  let begin = null, chosen = null;
  box.classList.add("ready");
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest("a")) return;
    begin = place(event);
    svg.setPointerCapture(event.pointerId);
    chosen = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    chosen.setAttribute("class", "chosen");
    chosen.setAttribute("y", "14");
    chosen.setAttribute("height", String(height - 42));
    svg.append(chosen);
    event.preventDefault();
  });
  svg.addEventListener("pointermove", (event) => {
    if (begin === null) return;
    const end = place(event);
    chosen.setAttribute("x", String(Math.min(begin, end)));
    chosen.setAttribute("width", String(Math.abs(end - begin)));
  });
  const over = (event, keep) => {
    if (begin === null) return;
    const end = place(event), first = begin;
    begin = null;
    if (!keep || Math.abs(end - first) < 4) { chosen.remove(); return; }
    const form = document.getElementById("span-form");
    const digits = Math.max(0, 3 - Math.floor(Math.log10(Math.max(to - from, 1e-6))));
    form.elements.from.value = time(Math.min(first, end)).toFixed(Math.min(digits, 6));
    form.elements.to.value = time(Math.max(first, end)).toFixed(Math.min(digits, 6));
    form.requestSubmit();
  };
  svg.addEventListener("pointerup", (event) => over(event, true));
  svg.addEventListener("pointercancel", (event) => over(event, false));
}
// A link to a finding opens it, and what it is folded into.
const openFinding = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let outer = target; outer; outer = outer.parentElement?.closest("details")) if ("open" in outer) outer.open = true;
  if (target?.matches("details")) target.scrollIntoView();
};
addEventListener("hashchange", openFinding);
openFinding();
