"use strict";
// Hovering the plots shows every value at that moment; hovering or clicking a mark or its row lights up both.
const svg = document.querySelector("svg"), tip = document.getElementById("tip"), cursor = document.getElementById("cursor");
const data = JSON.parse(document.getElementById("data").textContent);
function light(number, on) {
  for (const one of document.querySelectorAll(`[data-mark="${number}"]`)) one.classList.toggle("lit", on);
}
for (const one of document.querySelectorAll("[data-mark]")) {
  one.addEventListener("mouseenter", () => light(one.dataset.mark, true));
  one.addEventListener("mouseleave", () => light(one.dataset.mark, false));
  if (one.closest("svg")) one.addEventListener("click", () => document.getElementById(`row-${one.dataset.mark}`).scrollIntoView({ behavior: "smooth", block: "center" }));
}
function at(points, time) {
  let best = null;
  for (const point of points) if (Math.abs(point[0] - time) <= 2 && (best === null || Math.abs(point[0] - time) < Math.abs(best[0] - time))) best = point;
  return best === null ? null : best[1];
}
svg.addEventListener("mousemove", (event) => {
  const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const inside = place.x >= data.left && place.x <= data.right;
  cursor.style.visibility = tip.style.visibility = inside ? "visible" : "hidden";
  if (!inside) return;
  const time = data.start + ((place.x - data.left) / (data.right - data.left)) * (data.end - data.start);
  cursor.setAttribute("x1", place.x); cursor.setAttribute("x2", place.x);
  const mark = event.target.closest("[data-mark]");
  const lines = [`${time.toFixed(1)} s`];
  if (mark) lines.push(mark.querySelector("title").textContent);
  else for (const one of data.series) { const value = at(one.points, time); if (value !== null) lines.push(`${one.label}: ${value}`); }
  tip.textContent = lines.join("\n");
  tip.style.left = `${Math.min(event.clientX + 16, innerWidth - 350)}px`;
  tip.style.top = `${Math.max(8, Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8))}px`;
});
svg.addEventListener("mouseleave", () => { cursor.style.visibility = tip.style.visibility = "hidden"; });
