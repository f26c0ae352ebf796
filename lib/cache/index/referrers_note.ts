/**
 * Notes of what is attached to a manifest. They are kept among the tags, under names that no tag may have.
 *
 * @module
 */

/**
 * What the tags begin with under which is noted what is attached to what. They must not be ones that a
 * manifest can have: no tag contains a slash.
 */
export const NOTES = "referrers/";

/** Whether `tag` is a note and no tag that somebody could pull. */
export function isReferrersNote(tag: string): boolean {
  return tag.startsWith(NOTES);
}
