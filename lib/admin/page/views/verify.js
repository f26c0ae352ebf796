/**
 * Verifying the store: everything in it is read and hashed.
 *
 * @module
 */
import { confirm } from "../dialog.js";
import { h, setText } from "../dom.js";
import { count, percent, size } from "../format.js";
import { t } from "../i18n.js";
import { notify } from "../notice.js";
import { bar, digestWithCopy, textOf } from "../parts.js";
import { task } from "../task.js";

/** `{ element, stop(), setEnabled(isEnabled) }` */
export function verifier() {
  const progress = bar(t("verify.progress"));
  const numbers = h("p", { class: "numbers" });
  const result = h("p", { class: "result", role: "status" });
  const wrong = h("ul", { class: "digests" });
  let report;
  let problem;
  progress.element.hidden = true;

  const run = task({
    path: "api/verify",
    text: t("verify.start"),
    onclick: begin,
    onEvent(event) {
      if (event.type === "done") report = event;
      const { checked, total = checked, bytes, totalBytes } = event;
      const part = totalBytes > 0 ? bytes / totalBytes : total > 0 ? checked / total : 1;
      progress.set(event.type === "done" ? 1 : part, percent(part, 0));
      const values = { n: count(checked), total: count(total), size: size(bytes) };
      setText(numbers, t("verify.checked", values));
    },
    onError: (error) => problem = textOf(error),
    onEnd({ isStopped }) {
      const isWrong = problem !== undefined || report?.wrong.length > 0;
      const text = isStopped
        ? t("task.stopped")
        : problem ?? (isWrong ? t("verify.wrong", { n: report.wrong.length }) : t("verify.right"));
      result.textContent = text;
      result.classList.toggle("wrong", !isStopped && isWrong);
      wrong.replaceChildren(
        ...(report?.wrong ?? []).map((digest) => h("li", {}, digestWithCopy(digest))),
      );
      if (!isStopped) notify(text, { isError: isWrong });
    },
  });

  async function begin() {
    const isSure = await confirm({
      title: t("verify.title"),
      text: [t("verify.confirm")],
      action: t("verify.start"),
    });
    if (!isSure) return;
    report = problem = undefined;
    result.textContent = t("verify.running");
    result.classList.remove("wrong");
    wrong.replaceChildren();
    numbers.textContent = "";
    progress.set(0, percent(0, 0));
    progress.element.hidden = false;
    await run.start({});
  }

  return {
    stop: run.stop,
    setEnabled: run.setEnabled,
    element: h(
      "div",
      { class: "task" },
      h("p", {}, t("verify.text")),
      run.buttons,
      progress.element,
      numbers,
      result,
      wrong,
    ),
  };
}
