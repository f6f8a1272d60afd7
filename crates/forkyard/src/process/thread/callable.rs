//! What a thread can call: functions, closures and tasks.

use super::super::task::{Function, Task};

/// Something that can be called once with the tuple `Args`: a function or closure of up to eight arguments, or a
/// [`Task`].
pub trait Callable<Args> {
    /// What it returns.
    type Output;

    /// Calls it.
    fn call_with(self, args: Args) -> Self::Output;
}

macro_rules! callable {
    ($($arg:ident)*) => {
        impl<C, R, $($arg),*> Callable<($($arg,)*)> for C
        where
            C: FnOnce($($arg),*) -> R,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn call_with(self, ($($arg,)*): ($($arg,)*)) -> R {
                self($($arg),*)
            }
        }
    };
}
callable!();
callable!(A);
callable!(A B);
callable!(A B D);
callable!(A B D E);
callable!(A B D E F);
callable!(A B D E F G);
callable!(A B D E F G H);
callable!(A B D E F G H I);

impl<F, Args> Callable<Args> for Task<F>
where
    F: Function<Args>,
{
    type Output = F::Output;

    fn call_with(self, args: Args) -> F::Output {
        (*self).call(args)
    }
}
