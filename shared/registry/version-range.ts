/** Ranges of versions as node-semver reads them; commas may stand between comparators, as in `>=1.2.0,<2.0.0`. */
import * as semver from "semver";

const spaced = (range: string): string => range.replaceAll(",", " ");

export const isVersionRange = (range: string): boolean => semver.validRange(spaced(range)) !== null;

export const fitsRange = (version: string, range: string): boolean => semver.satisfies(version, spaced(range));

/**
 * The highest release that fits all ranges; a pre-release only where a range asks for one, or where there is nothing else and no range. Null: none fits.
 * `versions` are those that run now.
 */
export function pickVersion(versions: readonly string[], ranges: readonly string[]): string | null {
  const fitting = versions.filter((version) => ranges.every((range) => fitsRange(version, range)));
  const releases = fitting.filter((version) => semver.prerelease(version) === null);
  return (releases.length > 0 ? releases : fitting).reduce<string | null>((best, version) => (best === null || semver.gt(version, best) ? version : best), null);
}
