"use strict";
// Shared by all pages: requests with the CSRF header, and messages in words.
window.tumble = (() => {
  const csrf = document.querySelector('meta[name="csrf-token"]').content;
  let timer = 0;

  function say(text, bad = false) {
    const box = document.getElementById("message");
    box.textContent = text;
    box.classList.toggle("bad", bad);
    box.hidden = false;
    clearTimeout(timer);
    timer = setTimeout(() => { box.hidden = true; }, bad ? 9000 : 2500);
  }

  // Answers the parsed JSON; where it fails, says so in words and throws.
  // What is on its way when the page is left (keepalive) arrives all the same.
  async function request(method, url, body, keepalive = false) {
    let response;
    try {
      response = await fetch(url, {
        method,
        keepalive,
        headers: { Accept: "application/json", "Content-Type": "application/json", "X-Tumble-CSRF": csrf },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch {
      const sentence = "The server does not answer. What was saved is safe; start `tumble app` again and reload.";
      say(sentence, true);
      throw new Error(sentence);
    }
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) {
      const sentence = answer.detail || `The server refused (${response.status}).`;
      say(sentence, true);
      throw new Error(sentence);
    }
    return answer;
  }

  return {
    say,
    get: (url) => request("GET", url),
    post: (url, body = {}) => request("POST", url, body),
    send: (url, body) => request("POST", url, body, true),
  };
})();
