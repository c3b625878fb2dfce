"""Controls: is implicit knowledge more than a reparametrisation? (sections 5.2, 5.3 and 4.4)"""

from __future__ import annotations

from ablations.experiments import ADD_FA, ADD_PR, CSP_FAST, MUL_PR, P6_LIGHT
from ablations.table import Row, Table

TABLE = Table(
    name="controls",
    title="Controls of + iFA, iPR and fine-tuning",
    section="4.4, 5.2, 5.3, 5.5, 5.8",
    question="Is implicit knowledge before and after a linear predictor more than a reparametrisation?",
    hypothesis=(
        "It adds no function that the predictor could not learn: W (x + a) + b = W x + (b + W a), and a bias "
        "with an offset is a bias. What is left is the optimisation. + iPR under SGD moves an output's offset"
        " as one bias whose learning rate is its own plus that of the weights; + iFA starts elsewhere and "
        "moves biases through W."
    ),
    rows=(
        Row("baseline", CSP_FAST, "YOLOv4-CSP-fast without implicit knowledge", 0),
        Row("+ iPR", CSP_FAST.plus(ADD_PR), "a learnt vector added to the prediction", 765),
        Row(
            "faster bias",
            CSP_FAST.with_faster_bias(2.0),
            "no implicit knowledge; the predictors' biases learn at their rate plus that of the weights",
            0,
            against="+ iPR",
        ),
        Row("+ iFA", CSP_FAST.plus(ADD_FA), "a learnt vector added in front of the predictor", 1_792),
        Row(
            "frozen iFA",
            CSP_FAST.plus(ADD_FA.model_copy(update={"learning": "frozen"})),
            "the same random vector, never trained",
            1_792,
            against="+ iFA",
        ),
        Row(
            "folded iFA",
            CSP_FAST.plus(ADD_FA.model_copy(update={"learning": "folded"})),
            "the same random vector, merged into the predictor's bias before training",
            0,
            against="+ iFA",
        ),
        Row(
            "k-means anchors",
            CSP_FAST.with_kmeans_anchors(),
            "no implicit knowledge; anchors by k-means on the training boxes",
            0,
        ),
        Row(
            "fine-tuned P6",
            P6_LIGHT.finetuned(),
            "YOLOv4-P6-light without implicit knowledge, trained as long as Table 8's fine-tuned row",
            against="fine-tuned P6",
        ),
        Row(
            "fine-tuned implicit P6",
            P6_LIGHT.plus(ADD_FA, MUL_PR).finetuned(),
            "+ iFA and × iPR, Table 8's fine-tuned row",
            2_812,
            against="fine-tuned P6",
        ),
    ),
    remarks=(
        "The controls are compared with the row that they imitate, the implicit rows with the baseline. "
        "Where a row has gained, and its control is shown to be as good, the gain is one of optimisation. An "
        "interval that holds 0 does not show that; its ends say which differences are left.",
        "faster bias differs from + iPR only by the random start of the vector: bias and vector of + iPR "
        "receive the same gradient.",
        "k-means anchors show what a refinement of anchors, as by × iPR (section 3), could gain here.",
        "The P6 models have a baseline of their own: the one that the paper compares the fine-tuned row with "
        "is trained for two thirds as long.",
        "The paper has no such rows.",
    ),
    extends="4",
)
