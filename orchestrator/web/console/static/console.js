// The console's only script. Without it every page works; with it a page that is left open stays true.
//
// A stream says that something has changed; the page then asks for itself again and puts in place what differs.
"use strict";

(() => {
  const sign = document.getElementById("live");
  const settle = 400; // ms: what changes together is asked for once
  const atMost = 2000; // ms between two questions, however much happens
  const ages = 60000; // ms: "3 min ago" is looked at again
  const first = 1000, longest = 30000; // ms until a broken stream is tried again
  let stream = null, waiting = null, asking = false, again = false, asked = 0, wait = first, tag = null;

  function say(word, kind) {
    if (!sign || (sign.textContent === word && !sign.hidden)) return;
    sign.hidden = false;
    sign.textContent = word;
    sign.className = "live " + kind;
  }

  function busy() {
    const at = document.activeElement;
    return at && at.matches("input, select, textarea");
  }

  // What the reader has opened stays open.
  function put(old, fresh) {
    const open = [...old.querySelectorAll("details")].map((each) => each.open);
    const scrolled = [...old.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
    const at = old.contains(document.activeElement) ? document.activeElement : null;
    const where = at && [...old.querySelectorAll("a, button, summary, [tabindex]")].indexOf(at);
    const made = document.importNode(fresh, true);
    old.replaceWith(made);
    made.querySelectorAll("details").forEach((each, i) => { each.open = open[i] || false; });
    made.querySelectorAll(".scroll").forEach((each, i) => { each.scrollLeft = scrolled[i] || 0; });
    if (at) {
      const same = made.querySelectorAll("a, button, summary, [tabindex]")[where];
      if (same) same.focus({ preventScroll: true });
    }
  }

  async function refresh() {
    waiting = null;
    if (document.hidden || busy()) { again = true; return; }
    if (asking) { again = true; return; }
    asking = true;
    again = false;
    asked = Date.now();
    try {
      const headers = { "X-Wave-Part": "main" };
      if (tag) headers["If-None-Match"] = tag;
      const answer = await fetch(location.href, { headers, credentials: "same-origin", cache: "no-store", redirect: "manual" });
      if (answer.type === "opaqueredirect" || answer.status === 401) {
        // The session is over: the page says so and leads to the door.
        location.reload();
        return;
      }
      if (answer.status === 200) {
        tag = answer.headers.get("etag");
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of fresh.querySelectorAll("[data-part]")) {
          const old = document.getElementById(part.id);
          if (old && old.outerHTML !== part.outerHTML && !sameBut(old, part)) put(old, part);
        }
      }
    } catch (_) {
      again = true; // the stream says when the server is there again
    } finally {
      asking = false;
      if (again && stream && stream.readyState === EventSource.OPEN) soon();
    }
  }

  // A part in which only a <details> was opened is the same.
  function sameBut(old, fresh) {
    const copy = old.cloneNode(true);
    copy.querySelectorAll("details[open]").forEach((each) => each.removeAttribute("open"));
    return copy.outerHTML === fresh.outerHTML;
  }

  function soon() {
    if (waiting !== null) return;
    waiting = setTimeout(refresh, Math.max(settle, asked + atMost - Date.now()));
  }

  function listen() {
    stream = new EventSource("/live");
    stream.onopen = () => { wait = first; say("live", "on"); soon(); };
    stream.addEventListener("change", soon);
    stream.onerror = () => {
      say("reconnecting", "off");
      if (stream.readyState === EventSource.CLOSED) {
        stream = null;
        soon(); // it may be the session that is over: the page itself tells
        setTimeout(listen, wait);
        wait = Math.min(longest, wait * 2);
      }
    };
  }

  if (document.body.hasAttribute("data-live")) {
    listen();
    setInterval(() => { if (stream && stream.readyState === EventSource.OPEN) soon(); }, ages);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
    document.addEventListener("focusout", () => { if (again) soon(); });
  }

  // What is being worked on is looked at again until it is done.
  setInterval(() => { if (document.querySelector("[data-again]")) soon(); }, 1500);

  // A button that was pressed is not pressed again while the answer is on its way.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "yes";
    setTimeout(() => { delete form.dataset.sent; }, 5000);
  });
})();
