// What all parts of the page use.

export const $ = (id) => document.getElementById(id);

export function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  if (className) element.className = className;
  return element;
}

export function say(id, text, on) {
  $(id).textContent = text;
  $(id).className = on === undefined ? "" : on ? "on" : "off";
}

export function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
}

export function show(id, text, bad = false) {
  $(id).textContent = text;
  $(id).className = bad ? "bad" : "";
}

export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 1).replace(/^\{\n|\n\}$/g, "");
  } catch {
    return text;
  }
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB"];
  const power = Math.min(3, Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 1024 ** power).toFixed(1)} ${units[power - 1]}`;
}

export function seconds(value) {
  if (value < 0.0001) return "< 0.1 s"; // of a connection: the server's clock hand moves ten times a second
  if (value < 0.0995) return `${(value * 1000).toFixed(1)} ms`;
  return value < 600 ? `${value.toFixed(1)} s` : `${Math.floor(value / 60)} min`;
}

export const count = (number) => number.toLocaleString("en");
