// The page works without this. With it, forms send themselves less that is empty, and the time zone field
// knows all zones and the reader's own.
"use strict";

// Addresses that are handed on should be short: fields that say nothing are not sent.
for (const form of document.querySelectorAll('form[method="get"]')) {
  form.addEventListener("submit", () => {
    const empty = [...form.elements].filter((field) => field.name && !field.value);
    for (const field of empty) field.disabled = true;
    // Whoever comes back by the back button finds the fields as they were.
    window.addEventListener("pageshow", () => empty.forEach((field) => (field.disabled = false)), { once: true });
  });
}

const zones = document.getElementById("zones");
if (zones && Intl.supportedValuesOf) {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const names = new Set(["UTC", own, ...Intl.supportedValuesOf("timeZone")]);
  zones.replaceChildren(...[...names].map((name) => new Option(name, name)));
}

// A choice is its own confirmation.
for (const choice of document.querySelectorAll("select[data-sends]")) {
  choice.addEventListener("change", () => choice.form.requestSubmit());
}
