"""Problems in the style of GSM8K, written for these tests, with the structure that each has."""

from __future__ import annotations

from typing import NamedTuple

from multiverse.curation.dataflow.blocks import Fork, Series
from multiverse.curation.dataflow.solution import Solution, solution_of
from multiverse.data import Fault


class Case(NamedTuple):
    """A problem, and the order of its statements (a rejection's reason, where it has none)."""

    question: str
    solution: str
    wanted: Series | str


def solved(case: Case) -> Solution:
    found = solution_of({"question": case.question, "answer": case.solution}, "cases.jsonl", 1)
    assert not isinstance(found, Fault), found
    return found


CASES = {
    "two chains": Case(
        "Rosa bakes 4 trays of 12 rolls. Her brother bakes 3 trays of 15 buns and burns 5. How many good pieces are there?",
        "Rosa bakes 4*12 = <<4*12=48>>48 rolls.\n"
        "Her brother bakes 3*15 = <<3*15=45>>45 buns.\n"
        "After burning some, 45-5 = <<45-5=40>>40 buns are good.\n"
        "Together there are 48+40 = <<48+40=88>>88 good pieces.\n#### 88",
        (Fork(((0,), (1, 2))), 3),
    ),
    "a chain": Case(
        "A pump moves 9 liters a minute. How many liters does it move in 4 hours?",
        "In an hour it moves 9*60 = <<9*60=540>>540 liters.\n"
        "In four hours it moves 540*4 = <<540*4=2160>>2160 liters.\n#### 2,160",
        (0, 1),
    ),
    "equal results, both used": Case(
        "Drew solved 20 riddles and failed at 6. Carla solved 14 and failed at twice as many as Drew. How many were asked?",
        "Drew was asked 20+6 = <<20+6=26>>26 riddles.\n"
        "Carla answered 2*6 = <<2*6=12>>12 badly.\n"
        "Carla was asked 14+12 = <<14+12=26>>26 riddles.\n"
        "In all, 26+26 = <<26+26=52>>52 riddles were asked.\n#### 52",
        (Fork(((0,), (1, 2))), 3),
    ),
    "equal results, used apart": Case(
        "Ben did half of his 10 races at sea and half on a lake. A sea race is 3 miles, a lake race 4. How many miles was it?",
        "He did 10/2 = <<10/2=5>>5 races at sea.\n"
        "He did 10-5 = <<10-5=5>>5 races on the lake.\n"
        "The first were 5*3 = <<5*3=15>>15 miles.\n"
        "The others were 5*4 = <<5*4=20>>20 miles.\n"
        "He raced 15+20 = <<15+20=35>>35 miles.\n#### 35",
        "ambiguous number",
    ),
    "equal results in one expression, one of them used before": Case(
        "A gate is half of 10 feet wide and 7 feet high. A door has sides of 2 and 3 feet, end to end. How much is that?",
        "The gate is 10/2 = <<10/2=5>>5 wide.\n"
        "The gate has 5*7 = <<5*7=35>>35.\n"
        "The door has 2+3 = <<2+3=5>>5 on one side.\n"
        "Door by gate there are 5*5 = <<5*5=25>>25.\n"
        "That makes 35+25 = <<35+25=60>>60.\n#### 60",
        (Fork(((0, 1), (2,))), 3, 4),  # the step with 5*5 needs both fives
    ),
    "a number of the question that is a result, by its unit": Case(
        "A stall sells 18 shirts for $2 each and 6 pairs of shoes for $3 a pair. How much money does it take?",
        "The shoes bring 6 x $3 = $<<6*3=18>>18.\n"
        "The shirts bring 18 x $2 = $<<18*2=36>>36.\n"
        "The stall takes $18 + $36 = $<<18+36=54>>54.\n#### 54",
        (Fork(((0,), (1,))), 2),
    ),
    "a number of the question that is a result, by its use": Case(
        "A farm has 400 trees. The farmer cuts a fifth of them and plants 5 new ones for each. How many trees are there now?",
        "The farmer cuts 400/5 = <<400/5=80>>80 trees.\n"
        "There are 400-80 = <<400-80=320>>320 old trees left.\n"
        "For the 80 cut ones, 80*5 = <<80*5=400>>400 trees are planted.\n"
        "Now the farm has 320+400 = <<320+400=720>>720 trees.\n#### 720",
        (0, Fork(((1,), (2,))), 3),
    ),
    "a share written in three forms": Case(
        "Of 60 pupils, 21 walk and the others ride. What share walks, and how many of 200 would walk at this rate?",
        "The share is 21/60 = <<21/60=0.35>>0.35.\n"
        "As per cent, that is <<0.35*100=35>>35%.\n"
        "Of 200, 200*35/100 = <<200*35/100=70>>70 would walk.\n#### 70",
        (0, 1, 2),
    ),
    "a result of 2 beside a pair": Case(
        "Ms. Hall runs at 6 mph for 20 minutes and then walks at 2 mph for 30 minutes. How many miles does she do?",
        "She runs 6/3 = <<6/3=2>>2 miles.\n"
        "30 minutes are 30/60 = <<30/60=0.5>>0.5 hours.\n"
        "She walks 2*0.5 = <<2*0.5=1>>1 mile.\n"
        "She does 2+1 = <<2+1=3>>3 miles.\n#### 3",
        "ambiguous number",
    ),
    "bound by words": Case(
        "A tank holds 90 gallons. A crew fills 2/3 of it, and a storm adds 12 gallons. How many gallons are in it?",
        "The crew fills 90*2/3 = <<90*2/3=60>>60 gallons.\n"
        "To that, the storm adds 3*4 = <<3*4=12>>12 gallons.\n"
        "There are 60+12 = <<60+12=72>>72 gallons in it.\n#### 72",
        (0, 1, 2),
    ),
    "a number from nowhere": Case(
        "A shop has red and blue pens. It sells 30 red ones at $2 and the blue ones at $3. How much does it take?",
        "The red pens bring 30*2 = $<<30*2=60>>60.\n"
        "The blue pens bring 47*3 = $<<47*3=141>>141.\n"
        "It takes 60+141 = $<<60+141=201>>201.\n#### 201",
        "number without a source",
    ),
    "a result that nobody uses": Case(
        "Tia saves $5 a week for 8 weeks, Jo $6 for 9 weeks and Kim $7 for 9 weeks. How much do Jo and Kim save?",
        "Tia saves 5*8 = $<<5*8=40>>40.\nJo saves 6*9 = $<<6*9=54>>54.\nKim saves 7*9 = $<<7*9=63>>63.\n"
        "Jo and Kim save 54+63 = $<<54+63=117>>117.\n#### 117",
        "unused result",
    ),
    "wrong arithmetic": Case("What is 7 times 6, less 1?", "It is 7*6 = <<7*6=41>>41.\n#### 41", "wrong arithmetic"),
    "an unknown": Case(
        "Three times a number is 12. What is it?", "Let n be the number.\n3*n=12.\nn = 12/3 = <<12/3=4>>4\n#### 4", "algebra"
    ),
    "another answer": Case("How many legs have 3 cats?", "They have 3*4 = <<3*4=12>>12 legs.\n#### 16", "wrong answer"),
    "no arithmetic": Case("How many are there?", "There are many.\n#### 3", "no arithmetic"),
    "nested": Case(
        "Jules has 4 cans of orange soda and 7 of grape soda, of 2 liters each. Mats has 3 cans of orange soda and 2 of lime,"
        " of 5 liters each. How many liters has Mats more?",
        "Jules has 4*2 = <<4*2=8>>8 liters of orange soda, which is a lot for a single shelf in the fridge.\n"
        "Jules has 7*2 = <<7*2=14>>14 liters of grape soda, which is a lot for a single shelf in the fridge.\n"
        "Jules has 8+14 = <<8+14=22>>22 liters.\n"
        "Mats has 3*5 = <<3*5=15>>15 liters of orange soda, which is a lot for a single shelf in the fridge.\n"
        "Mats has 2*5 = <<2*5=10>>10 liters of lime soda, which is a lot for a single shelf in the fridge.\n"
        "Mats has 15+10 = <<15+10=25>>25 liters.\n"
        "Mats has 25-22 = <<25-22=3>>3 liters more.\n#### 3",
        (Fork(((Fork(((0,), (1,))), 2), (Fork(((3,), (4,))), 5))), 6),
    ),
}
