/** The platform may put what an earlier step gave behind the command, between marks. Only what stands before is the command. */
import type { Attachment } from "@aau/sdk";

const HANDED = /\n\nBelow is what step (\S{1,64})(?: \("[^\n]*"\))?, plugin ([a-z0-9-]{1,40}), gave\. [^\n]*\n<(data-[0-9a-f]{24})>\n([\s\S]*?)\n<\/\3>/g;

export function commandAndData(description: string): { command: string; handed: Attachment[] } {
  const blocks = [...description.matchAll(HANDED)];
  const handed = blocks.map(([, step = "", plugin = "", , content = ""]) => ({ name: step, media_type: "text/plain", content, origin: { step, plugin } }));
  return { command: description.slice(0, blocks[0]?.index), handed };
}
