// Keeps the live part of a page current: the server says "changed", the page fetches its fragment and puts it in place.
// Everything works without this file; it only saves pressing "reload".
(() => {
  "use strict";
  const live = document.querySelector("[data-live]");
  if (!live || !window.EventSource) return;
  let waiting = false;
  let again = false;

  async function refresh() {
    if (waiting) { again = true; return; }
    if (document.hidden || "zoomed" in document.body.dataset) { again = true; return; }
    waiting = true;
    try {
      const answer = await fetch(live.dataset.live, { headers: { "x-requested-with": "fetch" }, credentials: "same-origin" });
      if (answer.ok && !answer.redirected) {
        const focused = document.activeElement && live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        const open = new Set([...live.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        live.replaceChildren(...page.body.childNodes);
        for (const summary of live.querySelectorAll("details > summary")) if (open.has(summary.textContent)) summary.parentElement.open = true;
        document.dispatchEvent(new Event("refreshed"));
        if (focused) live.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
      }
    } finally {
      waiting = false;
      if (again) { again = false; setTimeout(refresh, 1000); }
    }
  }

  const source = new EventSource("/events");
  source.addEventListener("changed", refresh);
  setInterval(refresh, Number(live.dataset.every ?? 15) * 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && again) { again = false; refresh(); } });
  addEventListener("pagehide", () => source.close());
})();
