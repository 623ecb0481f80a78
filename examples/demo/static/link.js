// The one connection to the hub, for all parts of the page.

import { Sojourn } from "./hub/sojourn.js";

export const hub = new Sojourn("hub");

/** The number in a position: publications of all channels are numbered in one row. */
export const numberOf = (position) => Number(position.split(".")[1]);

/** What the server said when it greeted this page last. */
export const greeting = { conn: "", pos: ".0" };
hub.on("open", (hello) => Object.assign(greeting, hello));
