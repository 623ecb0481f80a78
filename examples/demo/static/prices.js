// Prices: fifty updates a second of each, of which only the latest counts.

import { hub } from "./link.js";
import { $, count, make } from "./page.js";

const SYMBOLS = ["ACORN", "BIRCH", "CEDAR", "DAISY", "ELDER"];
const POINTS = 60;
const SVG = "http://www.w3.org/2000/svg";

const total = { published: 0, arrived: 0, drawn: 0 };
const tiles = SYMBOLS.map((symbol) => {
  const tile = make("div", "", "price");
  const price = make("output", "–");
  const line = document.createElementNS(SVG, "svg");
  line.setAttribute("viewBox", `0 0 ${POINTS - 1} 30`);
  line.setAttribute("preserveAspectRatio", "none");
  line.setAttribute("aria-hidden", "true");
  line.append(document.createElementNS(SVG, "polyline"));
  tile.append(make("span", symbol), price, line);
  price.ariaLabel = `Price of ${symbol}`;
  $("prices").append(tile);

  const state = { tile, price, line: line.firstChild, points: [], value: undefined, shown: undefined };
  let last;
  hub.join(`price:${symbol}`).on("message", ({ price: value, number }) => {
    total.arrived += 1;
    // Updates are numbered: what is missing between two was conflated, which here is no loss.
    total.published += last && number > last ? number - last : 1;
    last = number;
    state.value = value;
  });
  return state;
});

// Once per frame, whatever came meanwhile.
function draw() {
  for (const state of tiles) {
    if (state.value === state.shown) continue;
    state.tile.className = `price ${state.value < state.shown ? "down" : "up"}`;
    state.price.textContent = state.value.toFixed(2);
    state.shown = state.value;
    total.drawn += 1;
  }
  requestAnimationFrame(draw);
}

// Ten times a second: the lines and the counters.
function tick() {
  for (const { points, value, line } of tiles) {
    if (value === undefined) continue;
    points.push(value);
    if (points.length > POINTS) points.shift();
    const low = Math.min(...points);
    const range = Math.max(...points) - low || 1;
    line.setAttribute("points", points.map((one, at) => `${at},${28 - (26 * (one - low)) / range}`).join(" "));
  }
  $("price-published").textContent = count(total.published);
  $("price-arrived").textContent = count(total.arrived);
  $("price-conflated").textContent = count(total.published - total.arrived);
  $("price-drawn").textContent = count(total.drawn);
}

requestAnimationFrame(draw);
setInterval(tick, 100);
