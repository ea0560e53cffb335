"use strict";
// A view whose state is a form: what is chosen is shown at once, and lies in the address.
document.querySelectorAll("form[data-choose]").forEach((form) => {
  form.addEventListener("change", () => form.requestSubmit());
});
