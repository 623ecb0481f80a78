// One client stalls: what that costs it, and what the others feel of it.

import { hub } from "./link.js";
import { $, count, size } from "./page.js";

const SAMPLES = 120; // a minute
const WIDTH = 600;
const HEIGHT = 100;
const LOWEST = 0.1; // milliseconds
const DECADES = 4;

const samples = [];
let stalls = false;

hub.join("panel").on("message", (panel) => {
  const { stalled, late } = panel;
  stalls = stalled?.state === "stalls";
  samples.push({ late, stalls });
  if (samples.length > SAMPLES) samples.shift();
  drawChart();

  $("hub-members").textContent = `${panel.members}`;
  $("hub-members-note").textContent = `${panel.measuring} of them measure`;
  $("hub-slow").textContent = panel.slow;
  $("hub-suspect-note").textContent = `${panel.suspect} suspect`;
  $("hub-waits").textContent = stalls ? size(stalled.bytes) : "0 B";
  $("hub-waits-note").textContent = stalls && stalled.buffer ? `behind ${size(stalled.buffer)} in the buffer` : "for the stalled one";
  $("hub-conflated").textContent = count(panel.conflated);
  $("hub-dropped-note").textContent = `${count(panel.dropped)} dropped`;
  $("hub-median").textContent = late ? `${late[0].toFixed(1)} ms` : "–";
  $("hub-late-note").textContent = late ? `99 in 100 within ${late[1].toFixed(1)} ms` : "nobody measures yet";

  $("stall").textContent = stalls ? "Let it read on" : "Stall one client";
  $("stall").className = stalls ? "quiet" : "";
  $("stall").disabled = stalled?.state === "reads" || stalled?.state === "comes";
  if (stalled) $("stall-note").textContent = words(stalled);
});

function words({ state, seconds, published, got, messages, conflated, ending }) {
  const replaced = `of ${count(published)} prices it got ${count(got)}, ${count(conflated)} gave way to later ones`;
  if (state === "comes") return "It connects …";
  if (state === "stalls") return `Stalled for ${Math.floor(seconds)} s: ${messages} messages wait for it; ${replaced}.`;
  if (state === "reads") return `It reads again: ${replaced}, and it is up to date.`;
  return `It has left (${ending || "closed"}): ${replaced}.`;
}

$("stall").addEventListener("click", async () => {
  $("stall").disabled = true;
  const answer = await fetch("stall", { method: stalls ? "DELETE" : "POST" });
  if (!answer.ok) $("stall-note").textContent = await answer.text();
});

// How late prices came: milliseconds, upwards, each line ten times the one below.

const height = (milliseconds) => HEIGHT * (1 - Math.log10(Math.max(milliseconds, LOWEST) / LOWEST) / DECADES);
const across = (at) => ((at + SAMPLES - samples.length) * WIDTH) / (SAMPLES - 1);

function drawChart() {
  const measured = samples.map(({ late }, at) => [across(at), late]).filter(([, late]) => late);
  for (const [index, id] of [[0, "late-median"], [1, "late-most"]]) {
    const points = measured.map(([x, late]) => `${x.toFixed(1)},${height(late[index]).toFixed(1)}`);
    $(id).setAttribute("points", points.join(" "));
  }
  const spans = samples.map(({ stalls }, at) => (stalls ? `M${across(at - 1).toFixed(1)} 0H${across(at).toFixed(1)}V${HEIGHT}H${across(at - 1).toFixed(1)}z` : ""));
  $("late-stall").setAttribute("d", spans.join(""));
}
