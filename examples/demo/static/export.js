// A long export: a durable task, followed by server-sent events that go on where they were.

import { $, count, make, say } from "./page.js";

let stream = null;

function bar(pages) {
  $("export-bar").replaceChildren(...Array.from({ length: pages }, () => make("i")));
}

/** Every page has the colour of the process that wrote it. */
function wrote({ page, pages, process, run }) {
  if ($("export-bar").children.length !== pages) bar(pages);
  $("export-bar").children[page - 1].className = `run${1 + (run - 1) % 3}`;
  say("export-state", `page ${page} of ${pages}`, true);
  $("export-note").textContent = `Process ${process} writes it${run > 1 ? `; run ${run}, begun where the last one was` : ""}.`;
}

function ended(task) {
  stream.close();
  $("export").disabled = false;
  say("export-state", task.state, task.state === "completed");
  const { rows, runs } = task.result ?? {};
  $("export-note").textContent = task.state === "completed"
    ? `${count(rows)} rows, in ${runs === 1 ? "one run" : `${runs} runs`}. The record says so once, whatever happened meanwhile.`
    : `It has ${task.state}.`;
}

$("export").addEventListener("click", async () => {
  $("export").disabled = true;
  bar(40);
  try {
    const answer = await fetch("exports", { method: "POST" });
    if (answer.status !== 202) throw new Error(await answer.text());
    say("export-state", "202: written down", true);
    stream = new EventSource(answer.headers.get("location"));
  } catch (error) {
    $("export").disabled = false;
    say("export-state", `not started: ${error.message}`, false);
    return;
  }
  stream.addEventListener("progress", (event) => wrote(JSON.parse(event.data)));
  stream.addEventListener("end", (event) => ended(JSON.parse(event.data)));
  stream.addEventListener("error", () => say("export-state", "reconnecting", false));
});

$("kill").addEventListener("click", async () => {
  const answer = await fetch("kill", { method: "POST" }).catch(() => null);
  $("export-note").textContent = answer?.ok
    ? `Process ${(await answer.json()).killed} was killed. What it did is taken up when its lease has run out, 3 s at most.`
    : "Nobody would replace this process: it serves without a supervisor.";
});
