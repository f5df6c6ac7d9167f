// Questions to begin with; the model that comes with the package answers them well.

export const EXAMPLES = [
  [
    "Side by side",
    "Mia: start with 16, halve it, halve it, double it and halve it. Tom: start with 16, take away 7, add 8, double it and take away 10. Ana: start with 30, add 20, take away 14, add 4, halve it and double it. Ben: start with 24, add 13, double it, add 9 and add 15. What do all the results add up to?",
  ],
  [
    "Branches in branches",
    "North league: Red team: Mia: start with 29, take away 13 and take away 6; Tom: start with 19, add 2 and add 5. Blue team: Ana: start with 22, double it and take away 8; Ben: start with 11, take away 3 and double it. South league: Green team: Eva: start with 13, add 18 and double it; Leo: start with 20, double it and add 10. Gold team: Zoe: start with 23, double it and halve it; Max: start with 25, take away 4 and take away 1. What is the sum over both leagues?",
  ],
  ["Case by case", "7 times n plus 2 is 44. Which of 2, 13, 5, 6 and 3 is n?"],
  ["A search", "Combine 6, 15, 14 and 20, each used once, with + and - to get 27."],
  ["Nothing to fork", "Start with 11. Double it, then halve it, then add 5, then add 1, then take away 11. What do you get?"],
];
