"""Names and things of natural wording. Every third entry of a list is held out (`wording.part_of`): add only at the end."""

from __future__ import annotations


def _list(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.replace("\n", " ").split(",") if entry.strip())


FIRST_NAMES = _list("""
Aaron, Abigail, Adam, Aisha, Alan, Alice, Amara, Amir, Amy, Andre, Angela, Anika, Anna, Antonio, Arjun, Arthur, Astrid, Ayo,
Barbara, Beatrice, Bella, Boris, Brian, Bruno, Camila, Carl, Carmen, Caroline, Cecilia, Chen, Chloe, Clara, Connor, Daisy,
Daniel, Daphne, David, Deborah, Dennis, Diana, Diego, Dmitri, Dora, Edgar, Edith, Elena, Eli, Elise, Emil, Emma, Enzo, Erik,
Esther, Ethan, Fatima, Felix, Fiona, Florence, Frank, Freya, Gabriel, Georgia, Gideon, Giulia, Grace, Gustav, Hana, Hannah,
Harold, Hassan, Hazel, Hector, Helen, Henry, Hiro, Hugo, Ibrahim, Igor, Ines, Ingrid, Irene, Isaac, Isabel, Ivan, Ivy, Jack,
Jacob, Jamal, Jane, Jasmine, Jason, Joanna, Joel, Johan, Jonas, Jorge, Joseph, Judith, Julia, Kai, Karen, Karim, Kate,
Kenji, Kevin, Kofi, Lara, Laura, Layla, Leah, Leon, Liam, Lila, Linda, Linus, Lisa, Louis, Lucia, Lucy, Luis, Maria, Marco,
Margaret, Marie, Mark, Martha, Martin, Mateo, Maya, Mei, Michael, Mila, Milan, Miriam, Mohammed, Monica, Nadia, Naomi,
Natalie, Nathan, Nia, Nicole, Nina, Noah, Nora, Olga, Oliver, Olivia, Omar, Oscar, Otto, Pablo, Patricia, Paul, Pedro,
Peter, Petra, Philip, Priya, Quinn, Rachel, Rafael, Ralph, Raj, Rebecca, Rita, Robert, Rosa, Ruben, Ruth, Ryan, Sam, Samira,
Sandra, Sara, Sean, Sergei, Simon, Sofia, Stefan, Stella, Susan, Tariq, Tessa, Theo, Thomas, Tina, Tobias, Uma, Ursula,
Vera, Victor, Victoria, Vikram, Violet, Walter, Wanda, Wendy, William, Xavier, Yara, Yasmin, Yuki, Yusuf, Zara, Zoltan
""")

COUNTED = _list("""
marbles, stamps, stickers, coins, cards, pencils, shells, books, apples, beads, buttons, balloons, cookies, pebbles,
postcards, magnets, badges, oranges, crayons, tickets, tokens, feathers, candles, ribbons, puzzles, pens, muffins, walnuts,
flowers, lemons, chestnuts, bricks, keys, photos, comics, pears, bottles, jars, notebooks, envelopes, acorns, plums, bolts,
nails, screws, seeds, tulips, biscuits, eggs, cups, spoons, plates, socks, hats, scarves, toy cars, toy trains, paper
planes, paper clips, dominoes, chess pieces, tennis balls, golf balls, light bulbs, batteries, bookmarks, posters,
sandwiches, pretzels, cherries, peaches, figs, dates, carrots, onions, potatoes, tomatoes, peppers, mushrooms, turnips,
radishes, pumpkins, bracelets, rings, necklaces, earrings, brushes, sponges, towels, pillows, blankets, lanterns, kites,
drums, whistles, bells, flags, maps, tiles, planks
""")

PLACES = _list("""
the school fair, the market, the summer camp, the library, the village fete, the train station, the harbour, the toy shop,
the museum, the park, the bakery, the garden centre, the beach, the office, the community hall, the music school, the sports
club, the farm, the castle, the zoo, the airport, the book fair, the craft room, the youth club, the playground, the
swimming pool, the hotel, the campsite, the factory, the workshop, the science club, the art class, the flea market, the
town square, the orchard, the lake, the stadium, the theatre, the cinema, the post office, the bus depot, the hospital, the
greenhouse, the boat house, the mountain hut, the chess club, the charity shop, the cafeteria, the warehouse, the lighthouse
""")

GROUPS = _list("""
the red team, the blue team, the green team, the morning class, the evening class, the third grade, the fourth grade, the
bakery crew, the night shift, the drama club, the chess club, the garden club, the north branch, the south branch, the west
wing, the first boat, the second boat, the tent by the lake, the tent by the road, the upper floor, the lower floor, the
yellow bus, the white bus, the Lopez family, the Novak family, the Okafor family, the Tanaka family, the Larsen family, the
Rossi family, the Schmidt family, the Dubois family, the home side, the visiting side, the Tuesday group, the Friday group,
the junior squad
""")

CITIES = _list("""
Lisbon, Oslo, Madrid, Prague, Vienna, Dublin, Athens, Warsaw, Rome, Berlin, Paris, London, Cairo, Nairobi, Lagos, Tokyo,
Seoul, Delhi, Lima, Bogota, Boston, Chicago, Denver, Seattle, Toronto, Sydney, Perth, Hanoi, Manila, Jakarta, Bergen, Porto,
Seville, Lyon, Turin, Leeds, Krakow, Riga, Vilnius, Tallinn
""")

JOBS = _list("""
baker, nurse, teacher, pilot, farmer, plumber, lawyer, painter, dentist, driver, chef, tailor, carpenter, librarian,
engineer, gardener, musician, writer, actor, architect, barber, butcher, cashier, chemist, doctor, electrician, fisherman,
florist, journalist, judge, mechanic, photographer, postman, sailor, waiter
""")

COLOURS = _list("""
red, blue, green, yellow, purple, orange, black, white, brown, pink, grey, silver, gold, turquoise, beige
""")

PETS = _list("""
cat, dog, rabbit, parrot, goldfish, hamster, turtle, pony, canary, lizard, guinea pig, ferret, snake, goat, duck, hen,
donkey, frog
""")

INSTRUMENTS = _list("""
piano, violin, guitar, flute, drums, trumpet, cello, harp, clarinet, saxophone, accordion, banjo, oboe, tuba, ukulele
""")

GOODS = _list("""
bread, milk, cheese, butter, honey, coffee, tea, rice, flour, sugar, olive oil, jam, yoghurt, chocolate, pasta, salt,
pepper, vinegar, mustard, cream, cereal, soap, shampoo, toothpaste, wax, wool, rope, paint, glue, cotton, string, paper
""")

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
