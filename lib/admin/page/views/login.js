/**
 * Asks for the operator's token, if the API requires one.
 *
 * @module
 */
import { login } from "../api.js";
import { h } from "../dom.js";
import { t } from "../i18n.js";
import { textOf } from "../parts.js";

/** Mounts the form. Calls `onLogin` after a successful login. */
export function loginView(main, { onLogin }) {
  const input = h("input", {
    id: "token",
    type: "password",
    autocomplete: "current-password",
    required: true,
    "data-focus": true,
    "aria-describedby": "login-error",
  });
  const problem = h("p", { id: "login-error", class: "problem", role: "alert" });
  const button = h("button", { class: "primary" }, t("login.in"));
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    problem.textContent = "";
    try {
      await login(input.value);
      onLogin();
    } catch (error) {
      problem.textContent = error.status === 401 ? t("login.wrong") : textOf(error);
      button.disabled = false;
      input.select();
    }
  };
  main.append(
    h(
      "form",
      { class: "login", onsubmit: submit },
      h("h1", {}, t("login.title")),
      h("p", {}, t("login.text")),
      h("label", { for: "token" }, t("login.token")),
      input,
      problem,
      button,
    ),
  );
  input.focus();
}
