/** What a scene says of its sliders and of its arrays. */

export const slider = (label, from, to, value) => ({ label, from, to, value });

/** An array's name, what it is, and whose colour it has: X's, W's or Y's. */
export const panel = (name, says, role, more = {}) => ({ name, says, role, ...more });
