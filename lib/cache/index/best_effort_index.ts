/**
 * An index that never breaks an answer: what cannot be read is not known, what cannot be written is not
 * kept, and the trouble is reported.
 *
 * @module
 */
import type { Awaitable, Facts, Index } from "./index.ts";

const NOTHING: Facts = { isGranted: false };

async function attempt<T>(
  work: () => Awaitable<T>,
  { fallback, onTrouble }: { fallback: T; onTrouble: (error: unknown) => void },
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    onTrouble(error);
    return fallback;
  }
}

/** What the policies use of an index: lookups and notes, none of which may break an answer. */
export type BestEffortIndex = Pick<
  Index,
  "link" | "addLink" | "tag" | "setTag" | "removeTag" | "publicSince" | "setPublic" | "look"
>;

/** `index`, whose failures go to `onTrouble` and otherwise look like nothing is there. */
export function bestEffortIndex(
  index: Index,
  onTrouble: (error: unknown) => void,
): BestEffortIndex {
  const read = <T>(work: () => Awaitable<T | undefined>) =>
    attempt<T | undefined>(work, { fallback: undefined, onTrouble });
  const write = (work: () => Awaitable<void>) =>
    attempt<void>(work, { fallback: undefined, onTrouble });
  const look = index.look?.bind(index);
  return {
    look: look &&
      ((question) => attempt(() => look(question), { fallback: NOTHING, onTrouble })),
    link: (key) => read(() => index.link(key)),
    addLink: (key, row) => write(() => index.addLink(key, row)),
    tag: (key, tag) => read(() => index.tag(key, tag)),
    setTag: (key, tag, row) => write(() => index.setTag(key, tag, row)),
    removeTag: (key, tag) => write(() => index.removeTag(key, tag)),
    publicSince: (key) => read(() => index.publicSince(key)),
    setPublic: (key, at) => write(() => index.setPublic(key, at)),
  };
}
