"""Every op with operands of awkward shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.graph.op import Op
from convloom.graph.types import BATCH, Dim
from convloom.graph.windows import same_padding
from graphs import Values, values

N = BATCH
Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class Case:
    """An op over operands of these shapes.

    scale: of the operands' normal values. positive, probabilities: positions of operands that must be > 0, or
    rows that sum to 1. indices: position -> bound of integers. truths: positions of truth values.
    """

    op: Op
    shapes: tuple[Shape, ...]
    scale: float = 1.0
    positive: tuple[int, ...] = ()
    probabilities: tuple[int, ...] = ()
    indices: tuple[tuple[int, int], ...] = ()
    truths: tuple[int, ...] = ()
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.op}{''.join(map(str, self.shapes))}".replace(" ", "").replace("'", "")

    def graph(self) -> Graph:
        graph = Graph("one op")
        names = []
        for position, shape in enumerate(self.shapes):
            whole = "uint8" if position in dict(self.indices) else self.dtype
            dtype = "bool" if position in self.truths else whole
            fixed = tuple(d for d in shape if isinstance(d, int))
            source = ops.Input(shape, dtype) if N in shape else ops.Parameter(fixed, dtype)
            names.append(graph.add(source, name=f"x{position}"))
        graph.outputs = {"y": graph.add(self.op, names, "y")}
        return graph

    def values(self, graph: Graph, batch: int) -> Values:
        given = values(graph, batch, seed=5)
        for position in range(len(self.shapes)):
            name = f"x{position}"
            given[name] = given[name] * self.scale
            if position in self.positive:
                given[name] = given[name].abs() + 0.2
            if position in self.probabilities:
                given[name] = torch.softmax(given[name], -1)
        for position, bound in self.indices:
            given[f"x{position}"] = (
                (given[f"x{position}"].abs() * 100).long().remainder(bound).to(torch.uint8)
            )
        for position in self.truths:
            given[f"x{position}"] = (
                torch.arange(given[f"x{position}"].numel()).reshape(given[f"x{position}"].shape) % 3 > 0
            )
        if isinstance(self.op, ops.Resize | ops.ResizeGrad):
            for position, shape in enumerate(self.shapes[1:], 1):
                (here, there), method = map(int, shape), self.op.method
                matrix = ops.InterpolationMatrix(here, there, method, self.op.antialias, "float64")
                given[f"x{position}"] = matrix.reference()
        if isinstance(self.op, ops.Warp | ops.WarpGrad):  # transforms that keep clear of a horizon
            still, moved = (1, 0, 0, 0, 1, 0, 0, 0), (0.2, 0.2, 3, 0.2, 0.2, 3, 0.01, 0.01)
            given["x1"] = torch.tensor(still).double() + torch.tensor(moved).double() * given["x1"].tanh()
        return given


IMAGE: Shape = (N, 7, 5, 3)
ASYMMETRIC = ((2, 1), (0, 3))


def conv(op: ops.Conv2D, image: Shape, size: tuple[int, int], filters: int, bias: bool = True) -> Case:
    kernel = (*size, int(image[3]) // op.groups, filters)
    return Case(op, (image, kernel, (filters,)) if bias else (image, kernel))


BOTH = ((False, False), (False, True), (True, False), (True, True))


def product(op: ops.MatMul, lead: tuple[int, ...], m: int = 5, k: int = 6, p: int = 7) -> Case:
    """Products of (m, k) and (k, p) matrices, as they lie for the op."""

    def lies(rows: int, columns: int, transposed: bool, split: bool) -> Shape:
        first, second = (columns, rows) if transposed else (rows, columns)
        return (N, *lead[:-1], first, lead[-1], second) if split else (N, *lead, first, second)

    return Case(op, (lies(m, k, op.transpose_a, op.split_a), lies(k, p, op.transpose_b, op.split_b)))


CASES: list[Case] = [
    # convolution: strides, dilation, groups, padding of every kind, and rows that no window reaches
    conv(ops.Conv2D(), IMAGE, (3, 3), 4),
    conv(ops.Conv2D(), IMAGE, (1, 1), 17, bias=False),
    conv(ops.Conv2D((2, 3), ASYMMETRIC), (N, 9, 8, 3), (3, 2), 5),
    conv(ops.Conv2D((3, 3)), (N, 10, 12, 2), (2, 2), 3),
    conv(ops.Conv2D((1, 1), ((1, 2), (2, 2)), (2, 3)), (N, 8, 9, 3), (3, 2), 4),
    conv(ops.Conv2D((2, 1), ((0, 1), (1, 1)), (2, 1), 3), (N, 9, 6, 6), (3, 3), 9),
    conv(
        ops.Conv2D((2, 2), (same_padding(6, 3, 2), same_padding(8, 5, 2)), groups=4), (N, 6, 8, 4), (3, 5), 8
    ),
    conv(ops.Conv2D((4, 4)), (N, 7, 6, 1), (1, 2), 1),
    Case(ops.Conv2DDataGrad((2, 1), ASYMMETRIC, (1, 2), 2, (8, 7)), ((N, 5, 8, 4), (3, 2, 2, 4))),
    Case(ops.Conv2DTranspose((2, 1), ASYMMETRIC, (1, 2), 2, (8, 7)), ((N, 5, 8, 4), (3, 2, 2, 4))),
    Case(ops.Conv2DTranspose((2, 3), input_size=(10, 13)), ((N, 4, 4, 3), (3, 2, 5, 3))),
    Case(ops.Conv2DWeightGrad((2, 1), ASYMMETRIC, (1, 2), 2, (3, 2)), ((N, 8, 7, 4), (N, 5, 8, 6))),
    # matrix products, of images too
    Case(ops.Dense(), ((N, 17), (17, 5), (5,))),
    Case(ops.Dense(), ((N, 3, 2, 7), (7, 1))),
    Case(ops.Dense(), ((N, 4, 3), (3, 65), (65,))),
    Case(ops.DenseDataGrad(), ((N, 3, 5), (7, 5))),
    Case(ops.DenseWeightGrad(), ((N, 3, 5), (N, 3, 7))),
    # products of two activations: every transposition, with heads before and within the matrices
    *(product(ops.MatMul(ta, tb), lead) for ta, tb in BOTH for lead in ((), (2, 3))),
    *(
        product(ops.MatMul(ta, tb, sa, sb, sy, factor=0.3), lead)
        for ta, tb, sa, sb, sy, lead in (
            (False, True, True, True, False, (3,)),
            (False, False, False, True, True, (3,)),
            (True, False, True, False, True, (2, 3)),
            (True, True, False, True, False, (2, 3)),
        )
    ),
    # pooling: tiling, overlapping, leaving a border, gaps between windows, padded
    *(
        Case(op(size, strides, padding), (image,))
        for op in (ops.MaxPool2D, ops.AveragePool2D)
        for image, size, strides, padding in (
            ((N, 6, 4, 3), (2, 2), (2, 2), ((0, 0), (0, 0))),
            ((N, 7, 5, 1), (2, 2), (2, 2), ((0, 0), (0, 0))),
            ((N, 7, 8, 3), (3, 2), (2, 1), ((1, 1), (0, 1))),
            ((N, 9, 8, 2), (2, 1), (3, 4), ((0, 1), (0, 0))),
            ((N, 5, 6, 17), (5, 6), (5, 6), ((0, 0), (0, 0))),
        )
    ),
    Case(ops.MaxPoolIndex2D((3, 2), (2, 1), ((1, 1), (0, 1))), ((N, 7, 8, 3),)),
    Case(ops.MaxPoolIndex2D((16, 17), (16, 17)), ((N, 16, 17, 2),)),
    Case(
        ops.MaxUnpool2D((3, 2), (2, 1), ((1, 1), (0, 1)), (7, 8)),
        ((N, 4, 8, 3), (N, 4, 8, 3)),
        indices=((1, 6),),
    ),
    Case(ops.AverageUnpool2D((3, 2), (2, 1), ((1, 1), (0, 1)), (7, 8)), ((N, 4, 8, 3),)),
    Case(ops.AverageUnpool2D((2, 3), (2, 3), input_size=(8, 12)), ((N, 4, 4, 3),)),
    # arithmetic: an operand of every kind of broadcasting, on either side
    *(
        Case(op, shapes)
        for op in (ops.Add(), ops.Subtract(), ops.Multiply())
        for shapes in (
            (IMAGE, IMAGE),
            (IMAGE, (3,)),
            (IMAGE, (N, 1, 1, 3)),
            (IMAGE, (N, 7, 5, 1)),
            (IMAGE, (N, 7, 1, 3)),
            (IMAGE, (1, 1, 1, 3)),
            (IMAGE, (7, 5, 3)),
            (IMAGE, ()),
            ((3,), IMAGE),
            ((N, 1, 1, 3), IMAGE),
            ((N, 7, 5, 1), (N, 1, 1, 3)),
            ((N, 6), (6,)),
        )
    ),
    *(
        Case(op, shapes, positive=(1,) if isinstance(op, ops.Divide) else ())
        for op in (ops.Divide(), ops.Maximum(), ops.Minimum())
        for shapes in (
            (IMAGE, IMAGE),
            (IMAGE, (3,)),
            ((3,), IMAGE),
            (IMAGE, (1, 5, 1)),
            (IMAGE, (1, 5, 3)),
            (IMAGE, (N, 7, 5, 1)),
            ((N, 1, 1, 3), IMAGE),
            ((N, 6), (1,)),
        )
    ),
    Case(ops.ExtremumGrad(), (IMAGE, IMAGE, IMAGE)),
    Case(ops.Prelu(), (IMAGE, (7, 5, 3))),
    Case(ops.Prelu(), (IMAGE, (1, 1, 3))),
    Case(ops.Prelu(), (IMAGE, (3,))),
    Case(ops.PreluGrad(), (IMAGE, IMAGE, (1, 5, 1))),
    Case(ops.BroadcastTo(IMAGE), ((N, 7, 1, 3),)),
    Case(ops.BroadcastTo(IMAGE, mean=True), ((N, 1, 1, 3),)),
    Case(ops.BroadcastTo((4, 3)), ((3,),)),
    Case(ops.BroadcastTo(IMAGE), ((1, 5, 1), IMAGE)),
    Case(ops.Scale(-2.5, 0.75), (IMAGE,)),
    Case(ops.Cast("float64"), (IMAGE,), dtype="float64"),
    Case(ops.Cast("bfloat16"), (IMAGE,)),
    Case(ops.Square(), (IMAGE,)),
    Case(ops.RsqrtPlus(0.01), ((5,),), positive=(0,)),
    Case(ops.RsqrtPlus(0.01), ((N, 5),), positive=(0,)),
    # activations, wide enough to pass every bend
    *(
        Case(op, (IMAGE,), scale=4.0)
        for op in (
            ops.Relu(),
            ops.Relu6(),
            ops.LeakyRelu(0.3),
            ops.LeakyRelu(0.2),
            ops.Sigmoid(),
            ops.Tanh(),
            ops.Swish(),
            ops.Gelu(),
            ops.Gelu(True),
            ops.Elu(),
            ops.Elu(0.7),
            ops.GeneralRelu(),
            ops.GeneralRelu(5.1, 0.3, 1.1),
            ops.GeneralRelu(max_value=6.0),
            ops.HardSigmoid(),
            ops.HardSigmoid(0.2),
            ops.HardSwish(),
            ops.Softplus(),
            ops.Softsign(),
            ops.Mish(),
            ops.Exp(),
            ops.Abs(),
            ops.Elu(1.6732632423543772, scale=1.0507009873554805),
            ops.Elu(0.7, input_scale=1 / 0.7),
            ops.Clip(),
            ops.Clip(-2.5, 0.5),
            ops.HardShrink(),
            ops.SoftShrink(0.75),
            ops.Threshold(1.5, -0.5),
            ops.SparsePlus(),
            ops.LogSigmoid(),
            ops.Squareplus(),
            ops.Squareplus(0.3),
            ops.TanhShrink(),
        )
    ),
    Case(ops.Log(), (IMAGE,), positive=(0,)),
    Case(ops.Sqrt(), (IMAGE,), positive=(0,)),
    Case(ops.ActivationGrad(ops.Swish()), (IMAGE, IMAGE)),
    Case(ops.PointwiseGrad(ops.Divide(), 1), (IMAGE, IMAGE, (3,)), positive=(2,)),
    Case(ops.PointwiseGrad(ops.Mish()), (IMAGE, IMAGE), scale=4.0),
    Case(ops.BatchNorm(0.01), (IMAGE, (3,), (3,), (3,), (3,)), positive=(4,)),
    Case(ops.BatchNorm(), ((N, 17), (17,), (17,), (17,), (17,)), positive=(4,)),
    Case(ops.Normalize(0.01), (IMAGE, (3,), (3,)), positive=(2,)),
    Case(ops.Normalize(), (IMAGE, (N, 7, 5, 1), (N, 7, 5, 1)), positive=(2,)),
    Case(ops.Normalize(), (IMAGE, (N, 1, 1, 3), (N, 1, 1, 3)), positive=(2,)),
    Case(ops.BatchNormGrad(0.01), (IMAGE, IMAGE, (3,), (3,), (3,), (3,), (3,)), positive=(4,)),
    Case(ops.InTraining(), (IMAGE, IMAGE)),
    # resizing: growing, shrinking, one axis and several, with matrices and by copies
    Case(ops.Resize((1, 2), (14, 3)), (IMAGE, (7, 14), (5, 3))),
    Case(ops.Resize((2,), (9,), "lanczos3"), (IMAGE, (5, 9))),
    Case(ops.Resize((2,), (4,), "bicubic", True), ((N, 2, 9), (9, 4))),
    Case(ops.Resize((1, 2), (14, 3), "nearest"), (IMAGE,)),
    Case(ops.ResizeGrad((1, 2), (14, 3)), (IMAGE, (14, 7), (3, 5))),
    Case(ops.ResizeGrad((1,), (3,), "nearest"), (IMAGE,)),
    # views and movement
    Case(ops.Reshape((5, 21)), (IMAGE,)),
    Case(ops.Reshape((105,)), (IMAGE,)),
    Case(ops.Reshape((3, 2, 1, 20), batched=False), ((3, 2, 5, 4),)),
    Case(ops.Concat(), (IMAGE, (N, 7, 5, 1), (N, 7, 5, 4))),
    Case(ops.Concat(1), (IMAGE, (N, 2, 5, 3))),
    Case(ops.Concat(-2), (IMAGE, (N, 7, 1, 3))),
    Case(ops.Pad(((1, 2), (0, 3), (1, 0)), 0.5), (IMAGE,)),
    Case(ops.Step(), (IMAGE,)),
    Case(ops.Floor(), (IMAGE,), scale=4.0),
    Case(ops.StopGradient(), (IMAGE,)),
    # comparisons, logic and choices, of integers and truth values too
    *(
        Case(ops.Compare(relation), shapes)
        for relation in ops.RELATIONS
        for shapes in ((IMAGE, IMAGE), (IMAGE, (1,)), ((N, 7, 1, 3), (5, 1)), ((3,), IMAGE))
    ),
    Case(ops.Compare("less_equal"), (IMAGE, IMAGE), indices=((0, 3), (1, 3))),
    Case(ops.Compare("not_equal"), (IMAGE, IMAGE), truths=(0, 1)),
    *(
        Case(ops.Logical(connective), shapes, truths=(0, 1))
        for connective in ops.CONNECTIVES
        for shapes in ((IMAGE, IMAGE), (IMAGE, (3,)), ((N, 7, 1, 3), IMAGE))
    ),
    Case(ops.Not(), (IMAGE,), truths=(0,)),
    *(
        Case(ops.Where(), shapes, truths=(0,))
        for shapes in ((IMAGE, IMAGE, IMAGE), (IMAGE, (3,), IMAGE), ((N, 7, 1, 3), IMAGE, (5, 1)))
    ),
    Case(ops.Where(), (IMAGE, IMAGE, IMAGE), indices=((1, 9), (2, 9)), truths=(0,)),
    Case(ops.Where(), (IMAGE, IMAGE, IMAGE), truths=(0, 1, 2)),
    # rows of a table
    Case(ops.LookUp(), ((9, 17), (N, 5)), indices=((1, 9),)),
    Case(ops.LookUp(), ((65, 3), (N, 7, 5)), indices=((1, 65),)),
    Case(ops.LookUp(), ((9, 4), (N,)), indices=((1, 9),)),
    Case(ops.LookUpGrad(9), ((N, 5, 17), (N, 5)), indices=((1, 9),)),
    Case(ops.LookUpGrad(70), ((N, 7, 5, 3), (N, 7, 5)), indices=((1, 65),)),
    Case(ops.Flip((1, 3)), (IMAGE,)),
    Case(ops.Flip((2,)), ((N, 5, 7),)),
    Case(ops.Slice((1, 0, 2), (7, 3, 3)), (IMAGE,)),
    Case(ops.Transpose((0, 3, 1, 2)), (IMAGE,)),
    Case(ops.Transpose((1, 2, 0, 4, 3)), ((3, 2, 5, 4, 17),)),
    Case(ops.Transpose((2, 0, 1)), ((1, 65, 1),)),
    Case(ops.Transpose((2, 0, 3, 1)), ((3, 2, 5, 4),)),
    # images under transforms: every way to read, and to read outside
    *(
        Case(op(interpolation, fill_mode, 0.5, (6, 9)), ((N, 7, 5, 3), shape))
        for shape, modes in (((N, 8), ("constant", "nearest", "reflect", "wrap")), ((8,), ("reflect",)))
        for fill_mode in modes
        for interpolation in ("bilinear", "nearest")
        for op in (ops.Warp, ops.WarpGrad)
    ),
    # penalties and projections of weights
    Case(ops.SizePenalty(0.3, 0.2), ((3, 2, 5), (17,), (4, 1))),
    Case(ops.SizePenalty(l1=0.3), ((65,),)),
    Case(ops.SizePenalty(l2=0.2), ((7, 3), (1,))),
    *(Case(ops.OrthogonalPenalty(0.3, columns), ((5, 3),)) for columns in (False, True)),
    Case(ops.OrthogonalPenalty(0.3, True), ((3, 1),)),
    Case(ops.OrthogonalSlope(ops.OrthogonalPenalty(0.3)), ((5, 3),)),
    *(
        Case(ops.NormWithin(axes, least, most, rate), ((3, 2, 5),))
        for axes, least, most, rate in (
            *(((0,), 0.0, 1.0, 1.0), ((0, 2), 1.0, 1.0, 1.0)),
            ((1,), 0.5, 1.5, 0.25),
        )
    ),
    # reductions and losses
    Case(ops.Reduce((0, 1, 2)), (IMAGE,)),
    Case(ops.Reduce((1, 2), mean=True), (IMAGE,)),
    Case(ops.Reduce((1, 3), keepdims=True), (IMAGE,)),
    Case(ops.Reduce((0, 2), mean=True, keepdims=True), (IMAGE,)),
    Case(ops.Reduce((0, 1, 2, 3), mean=True), (IMAGE,)),
    Case(ops.Reduce((3,), mean=True), (IMAGE,)),
    Case(ops.Reduce((0,), mean=True), ((5, 3),)),
    Case(ops.Variance(), (IMAGE,)),
    Case(ops.Variance(), ((N, 5),)),
    Case(ops.Softmax(), ((N, 17),), scale=3.0),
    Case(ops.Softmax(), ((N, 3, 5),), scale=3.0),
    Case(ops.LogSoftmax(), ((N, 17),), scale=3.0),
    Case(ops.LogSoftmax(), ((N, 3, 5),), scale=3.0),
    Case(ops.Sparsemax(), ((N, 17),), scale=3.0),
    Case(ops.Sparsemax(), ((N, 3, 5),), scale=0.1),
    Case(ops.RowNorm(0.01), ((N, 17), (17,), (17,))),
    Case(ops.RowNorm(0.01), ((N, 3, 5), (5,))),
    Case(ops.RowNorm(0.01, centred=False), ((N, 4, 3, 5), (5,), (5,))),
    Case(ops.RowNorm(0.01, wide=True), ((N, 3, 5),)),
    Case(ops.RowNormGrad(0.01), ((N, 3, 5), (N, 3, 5), (5,))),
    Case(ops.RowNormGrad(0.01, centred=False), ((N, 17), (N, 17))),
    Case(ops.SparsemaxGrad(), ((N, 17), (N, 17)), probabilities=(1,)),
    Case(ops.SoftmaxGrad(), ((N, 17), (N, 17)), probabilities=(1,)),
    *(
        Case(op, (shape, shape), probabilities=rows)
        for shape in ((N, 7), (N, 2, 3, 5))
        for op, rows in (
            (ops.SoftmaxCrossEntropy(), (1,)),
            (ops.SoftmaxCrossEntropy(kept=0.9, spread=0.02), (1,)),
            (ops.CategoricalCrossEntropy(), (0, 1)),
            (ops.CategoricalFocal(gamma=1.5), (0, 1)),
            (ops.CategoricalFocal(from_logits=True), (1,)),
            (ops.CategoricalHinge(), (1,)),
            (ops.CosineDistance(), ()),
            (ops.BinaryCrossEntropy(), (0, 1)),
            (ops.BinaryCrossEntropy(True), (1,)),
            (ops.BinaryFocal(alpha=0.25), (0, 1)),
            (ops.BinaryFocal(True, gamma=0.5), (1,)),
            (ops.Divergence(), (0, 1)),
            (ops.PoissonError(), (0, 1)),
            (ops.LogarithmicError(), (0, 1)),
            (ops.PercentageError(), (0, 1)),
            (ops.HuberError(0.5), ()),
            (ops.LogCosh(), ()),
            (ops.HingeError(), ()),
            (ops.HingeError(squared=True), ()),
            (ops.AbsoluteError(), ()),
            (ops.SquaredError(), ()),
        )
    ),
    Case(ops.SoftmaxCrossEntropy(numbers=True), ((N, 3, 5), (N, 3, 1)), indices=((1, 5),)),
    Case(
        ops.GeneralizedCrossEntropy(0.7, numbers=True),
        ((N, 5), (N, 1)),
        indices=((1, 5),),
        probabilities=(0,),
    ),
    Case(ops.CategoricalCrossEntropy(), ((N, 7), (N, 7)), positive=(0, 1)),  # rows that do not sum to 1
    Case(ops.OverlapShare(0.3, 0.7), ((N, 7), (N, 7), (N, 7)), positive=(0, 1, 2)),
    Case(ops.CircleLoss(2.0), ((N, 5), (N, 1)), indices=((1, 3),), scale=0.3),
    Case(ops.CircleLossGrad(ops.CircleLoss(2.0)), ((N, 5), (N, 1), (N, 1)), indices=((1, 3),), scale=0.3),
    Case(ops.RowLossGrad(ops.SoftmaxCrossEntropy()), ((N, 5), (N, 5), (N, 1))),
    # statistics of all processes, of which there is one here
    Case(ops.MeanAcross(6), ((5,), (N, 2, 3, 1))),
    Case(ops.VarianceAcross(6), ((5,), (5,), (N, 2, 3, 1)), positive=(0,)),
    Case(ops.SumAcross(6), ((5,), (N, 2, 3, 1))),
]

DRAWN = (ops.Random, ops.RandomBlur, ops.RandomBox, ops.RandomTransform)
SOURCES = (ops.Input, ops.Parameter, *ops.KNOWN, *DRAWN)
