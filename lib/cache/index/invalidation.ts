/**
 * Tells of changes in an index that could make an answer given before wrong.
 *
 * @module
 */
import type { RepositoryKey } from "../../oci/registry.ts";
import type { Awaitable, Index } from "./index.ts";

/** Who is told. Each call comes when the change is in the index, or may be. */
export interface IndexListener {
  /** Content was removed. */
  forgetContent(digest: string): void;
  /** A tag was set or removed. */
  forgetTag(key: RepositoryKey, tag: string): void;
  /** A repository is not known to be public any more. */
  forgetRepository(key: RepositoryKey): void;
}

/** Makes `index` itself tell `listener`, so that it does whoever changes it. */
export function notifyInvalidation(index: Index, listener: IndexListener): void {
  const setTag = index.setTag.bind(index);
  const removeTag = index.removeTag.bind(index);
  const removeTags = index.removeTags.bind(index);
  const setPublic = index.setPublic.bind(index);
  const removeBlob = index.removeBlob.bind(index);
  index.setTag = (key, tag, row) =>
    after(() => setTag(key, tag, row), () => listener.forgetTag(key, tag));
  index.removeTag = (key, tag) =>
    after(() => removeTag(key, tag), () => listener.forgetTag(key, tag));
  index.removeTags = (entries) =>
    after(() => removeTags(entries), () => {
      for (const entry of entries) listener.forgetTag(entry, entry.tag);
    });
  index.setPublic = (key, at) =>
    at === undefined
      ? after(() => setPublic(key, at), () => listener.forgetRepository(key))
      : setPublic(key, at);
  index.removeBlob = (digest) =>
    after(() => removeBlob(digest), () => listener.forgetContent(digest));
}

/** Runs `work`, then `tell`, at once where `work` is done at once. A change that failed may have happened. */
function after(work: () => Awaitable<void>, tell: () => void): Awaitable<void> {
  let pending: Awaitable<void>;
  try {
    pending = work();
  } catch (error) {
    tell();
    throw error;
  }
  if (!(pending instanceof Promise)) return tell();
  return pending.finally(tell);
}
