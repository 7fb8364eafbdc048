// Live figures and the buttons. The server renders the lists; this fetches the page anew when it is
// told of a change and puts changed sections in place of old ones. No text is ever parsed as markup
// here but by the browser as a document of ours, in which nothing runs.
"use strict";

const REFRESH_MS = 700;
const RETRY_MS = 5000;
const $ = (id) => document.getElementById(id);
const live = $("live");
const dialog = $("confirm");
let wanted = false;
let waiting = false;

document.documentElement.classList.add("scripted");

// A page fetched by XMLHttpRequest as a document has no scripts running, and needs no HTML parsing
// of strings, which the content policy forbids.
function fetchPage() {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", location.pathname + location.search);
    request.setRequestHeader("accept", "text/html");
    request.responseType = "document";
    request.timeout = 10000;
    request.onload = () => (request.status === 200 && request.response
      ? resolve(request.response) : reject(new Error(`status ${request.status}`)));
    request.onerror = () => reject(new Error("no answer"));
    request.ontimeout = request.onerror;
    request.send();
  });
}

function place(next) {
  const focused = document.activeElement && document.activeElement.id;
  for (const fresh of next.querySelectorAll("main > section")) {
    const old = $(fresh.id);
    if (old && !old.isEqualNode(fresh) && !busyForm(old)) {
      old.replaceWith(document.adoptNode(fresh));
    }
  }
  if (focused && document.activeElement === document.body && $(focused)) $(focused).focus();
}

// Somebody is filling the filter in.
function busyForm(section) {
  const at = document.activeElement;
  return at && section.contains(at) && at.matches("input, select");
}

async function refresh() {
  if (waiting || dialog.open) { wanted = true; return; }
  waiting = true;
  wanted = false;
  try {
    place(await fetchPage());
  } catch (error) {
    live.textContent = `cannot refresh: ${error.message}`;
  }
  setTimeout(() => { waiting = false; if (wanted) refresh(); }, REFRESH_MS);
}

function watch() {
  const events = new EventSource("/events");
  events.onopen = () => { live.textContent = "live"; };
  events.addEventListener("change", refresh);
  events.onerror = () => {
    live.textContent = "not live; trying again";
    // After a refusal the browser gives up by itself.
    if (events.readyState === EventSource.CLOSED) { events.close(); setTimeout(watch, RETRY_MS); }
  };
}

async function ask(verb, body) {
  const answer = await fetch(`/inbox/${verb}`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.detail || `status ${answer.status}`);
  return said;
}

function confirmed(verb, plan) {
  const rate = plan.rate_per_s ? `, at ${plan.rate_per_s} per second: about ${plan.duration_s} s` : "";
  $("confirm-title").textContent = `${verb} ${plan.count}?`;
  $("confirm-plan").textContent = verb === "discard"
    ? `${plan.count} entries, ${plan.bytes} bytes. They cannot be brought back.`
    : `${plan.count} entries, ${plan.bytes} bytes${rate}.`;
  $("confirm-yes").textContent = verb;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-verb]");
  if (!button || dialog.open) return;
  const verb = button.dataset.verb;
  try {
    const plan = await ask(verb, { ...JSON.parse(button.dataset.request), dry_run: true });
    if (plan.count === 0) {
      $("result").textContent = "nothing there any more";
    } else if (await confirmed(verb, plan)) {
      const done = await ask(verb, plan.confirm);
      $("result").textContent = `${verb}: ${done.count} of ${plan.count}`;
    }
  } catch (error) {
    $("result").textContent = `${verb}: ${error.message}`;
  }
  refresh();
});

if (location.pathname === "/" || location.pathname.startsWith("/inbox/events/")) watch();
