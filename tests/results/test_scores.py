"""A score says what it is a value of; its fields are the columns of scores.parquet, in their order."""

from ablations.results.prompts_and_scores import Drawing
from ablations.results.scores import COLUMNS, Score, table_of


def test_the_columns_of_scores_parquet_are_a_scores_fields():
    assert COLUMNS == ("prompt_id", "condition", "candidate", "metric", "value", "image_seed", "image")


def test_scores_of_pictures_sets_and_conditions_say_what_they_are_values_of():
    drawing = Drawing(3, "refined", 1, "a cat", "a cat, oil", prompt_seed=5, image_seed=7)
    assert Score.of_picture(drawing, "piqe", 2) == (3, "refined", 1, "piqe", 2.0, 7, drawing.image)
    assert Score.of_set(3, "refined", "vendi", 1.5) == (3, "refined", -1, "vendi", 1.5, -1, "")
    assert Score.of_condition("refined", "inception_score", 4.0) == (-1, "refined", -1, "inception_score", 4.0, -1, "")


def test_a_table_of_no_scores_has_the_columns_all_the_same():
    assert tuple(table_of([]).columns) == COLUMNS
    table = table_of([Score.of_set(0, "coarse", "vendi", 1.0), Score.of_set(1, "coarse", "vendi", 2.0)])
    assert table.prompt_id.tolist() == [0, 1] and table.value.dtype == float
