//! What type parameters stand for, found by comparing types; a failed attempt is taken back.

use crate::types::Type;

#[derive(Default)]
pub struct Substitution {
    bound: Vec<Option<Type>>,
    /// Parameters in the order they were bound.
    trail: Vec<u32>,
}

impl Substitution {
    pub fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Param(self.bound.len() as u32 - 1)
    }

    pub fn mark(&self) -> usize {
        self.trail.len()
    }

    pub fn reset(&mut self, mark: usize) {
        for param in self.trail.drain(mark..) {
            self.bound[param as usize] = None;
        }
    }

    fn resolve(&self, ty: &Type) -> Type {
        let mut ty = ty.clone();
        while let Type::Param(number) = ty.base() {
            match &self.bound[*number as usize] {
                Some(next) => ty = next.clone(),
                None => break,
            }
        }
        ty
    }

    /// Whether both can be one type. `dyn` fits everything, and null fits what may be absent.
    pub fn unify(&mut self, left: &Type, right: &Type) -> bool {
        let (left, right) = (self.resolve(left), self.resolve(right));
        match (left.base(), right.base()) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::Param(a), Type::Param(b)) if a == b => true,
            (Type::Param(number), _) => self.bind(*number, &right),
            (_, Type::Param(number)) => self.bind(*number, &left),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.unify(a, b),
            (Type::Map(a, b), Type::Map(c, d)) => self.unify(a, c) && self.unify(b, d),
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::Object(a), Type::Object(b)) => a.name == b.name,
            (Type::Object(object), Type::Named(name)) | (Type::Named(name), Type::Object(object)) => {
                object.name == *name
            }
            (a, b) => a == b,
        }
    }

    fn bind(&mut self, number: u32, ty: &Type) -> bool {
        if self.occurs(number, ty) {
            return false;
        }
        self.bound[number as usize] = Some(ty.clone());
        self.trail.push(number);
        true
    }

    fn occurs(&self, number: u32, ty: &Type) -> bool {
        match self.resolve(ty).base() {
            Type::Param(other) => *other == number,
            Type::List(inner) | Type::Optional(inner) => self.occurs(number, inner),
            Type::Map(keys, values) => self.occurs(number, keys) || self.occurs(number, values),
            _ => false,
        }
    }

    /// The type with all that is known put in.
    pub fn settle(&self, ty: &Type) -> Type {
        let ty = self.resolve(ty);
        match &ty {
            Type::List(items) => Type::list(self.settle(items)),
            Type::Map(keys, values) => Type::map(self.settle(keys), self.settle(values)),
            Type::Optional(value) => Type::optional(self.settle(value)),
            _ => ty,
        }
    }
}

fn nullable(ty: &Type) -> bool {
    matches!(ty, Type::Null | Type::Object(_) | Type::Named(_) | Type::Timestamp | Type::Duration | Type::Optional(_))
}
