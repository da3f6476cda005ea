/** The manifest's version, also named in SARIF as the version of the tool. */
export const VERSION = "1.2.0";
