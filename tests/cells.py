"""What the tests of the cells share."""
import torch

BATCH, INPUT, HIDDEN = 3, 5, 4  # unequal, so that a transposed matrix fails


def random_cell(kind):
    """A cell in float64 with random parameters, and an input and a state for it."""
    torch.manual_seed(1)
    cell = kind(HIDDEN, INPUT).double()
    for parameter in cell.parameters():
        parameter.data.normal_()
    x, state = torch.randn(BATCH, INPUT), torch.randn(BATCH, kind.state_vectors * HIDDEN)
    return cell, x.double(), state.double()


def check_equations(kind, reference):
    """A cell's step is `reference(cell, x, state)`, also where its parameters are replaced."""
    cell, x, state = random_cell(kind)
    for _ in range(2):
        torch.testing.assert_close(cell(x, state), reference(cell, x, state))
        assert torch.autograd.gradcheck(cell, (x.requires_grad_(), state.requires_grad_()))
        for name, parameter in list(cell.named_parameters()):
            setattr(cell, name, torch.nn.Parameter(torch.randn_like(parameter)))


def check_initial_values(kind, names, bias):
    """Weights of variance 1/n, n their rows; biases all of one value."""
    cell = kind(hidden_state_size=400, input_size=300)
    assert [name for name, _ in cell.named_parameters()] == names
    for name, parameter in cell.named_parameters():
        if name.startswith('bias'):
            assert torch.equal(parameter, torch.full((1, 400), bias))
        else:
            assert parameter.shape == (700, 400)
            assert abs(parameter.mean()) < 1e-3 and abs(parameter.var() * 700 - 1) < 0.02
