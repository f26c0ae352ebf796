/**
 * Warming images, and verifying the store.
 *
 * @module
 */
import { h } from "../dom.js";
import { t } from "../i18n.js";
import { section } from "../parts.js";
import { verifier } from "./verify.js";
import { warmer } from "./warm.js";

/** Mounts the view. Unmounting it ends running tasks. */
export function upkeepView(main, { live, route }) {
  const warm = warmer(route.query.get("image") ?? "");
  const verify = verifier();
  const off = h("p", { class: "notice" }, t("upkeep.off"));
  main.append(
    h("h1", { tabindex: "-1", "data-focus": true }, t("nav.upkeep")),
    off,
    section(t("warm.title"), warm.element),
    section(t("verify.title"), verify.element),
  );
  const show = ({ overview }) => {
    const isOff = overview?.cache === null;
    off.hidden = !isOff;
    warm.setEnabled(!isOff);
    verify.setEnabled(!isOff);
  };
  show(live.state);
  const unlisten = live.listen((state, what) => what === "overview" && show(state));
  return () => {
    unlisten();
    warm.stop();
    verify.stop();
  };
}
